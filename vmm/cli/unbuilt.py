"""The commands of the plan that are not built yet: each refuses in one sentence, status 64."""

UNBUILT = {
    "lab": "the experiments with their charts",
    "fuzz": "differential runs of random programs",
    "kut": "the kvm-unit-tests ladder",
    "migrate": "migration between two processes",
}
