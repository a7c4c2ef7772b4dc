"""The families of methods, by what teaches: how `selfdistill methods` and docs/choosing-a-method.md group them."""

from typing import NamedTuple


class Family(NamedTuple):
    """Methods in which the same thing teaches the student."""

    teaches: str
    begin: str  # where to begin, in a sentence
    names: tuple[str, ...]  # of its methods, those to begin with first


FAMILIES = (
    Family(
        "nothing (controls that every method must beat)",
        "Begin with baseline, trained for as long as the method takes; compare's controls=auto does that.",
        ("baseline", "label_smoothing", "max_entropy", "focal", "manifold_mixup"),
    ),
    Family(
        "a self-teacher refines the student's maps",
        "Begin with frskd, and deep_supervision beside it, which is its control.",
        ("frskd", "deep_supervision", "frskd_sla", "teskd"),
    ),
    Family(
        "the student's deep maps or scores teach its shallow ones",
        "Begin with tfd, which adds no weights and no passes, or with byot's light exits.",
        ("tfd", "byot", "tf_fd", "sad", "dks", "one", "drg"),
    ),
    Family(
        "the student's past",
        "Begin with ps_kd: no further pass, and memory for the scores of each image.",
        ("ps_kd", "dlb", "dsr", "dtskd", "mean_teacher"),
    ),
    Family(
        "other views or images of the class",
        "Begin with cs_kd: one more image of the class for each image, without gradients.",
        ("cs_kd", "ddgsd", "bake", "mixskd"),
    ),
    Family(
        "rotations to be told apart",
        "Begin with sla_sd: four rotations of each image. hsakd_teacher adds a branch behind each stage.",
        ("sla_sd", "sla", "hsakd_teacher", "hsakd_online"),
    ),
    Family(
        "a virtual teacher",
        "Begin with tf_kd_reg: a formula, and nothing to compute.",
        ("tf_kd_reg", "zipf_ls", "uskd"),
    ),
    Family(
        "a trained teacher, method.teacher=RUN",
        "Begin with kd. hsakd and sskd learn from a run of hsakd_teacher or sskd_teacher.",
        ("kd", "at", "fitnet", "ofd", "nkd", "tf_kd_self", "kd_tf_fd", "hsakd", "sskd", "sskd_teacher"),
    ),
)
