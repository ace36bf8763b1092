"""The commands of the plan that are not built yet: each refuses in one sentence, status 64."""

UNBUILT = {
    "lab": "the experiments with their charts",
    "migrate": "migration between two processes",
}
