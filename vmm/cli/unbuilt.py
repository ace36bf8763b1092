"""The commands of the plan that are not built yet: each refuses in one sentence, status 64."""

UNBUILT = {
    "migrate": "migration between two processes",
}
