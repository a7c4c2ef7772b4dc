"""`hf:FOLDER` or `hf:NAME`: image classifiers and segmenters of transformers, which need not be installed."""

from pathlib import Path
from typing import Any

from torch import nn

from ..errors import one_line
from ..features.scores import ScoresAlone
from .errors import build_error

SIZE_OPTIONS = ("num_channels", "image_size")  # of a configuration, which follow from the data


def list_names() -> list[str]:
    """None: the networks are those of folders and of the Hub."""
    return []


def knows(network: str) -> bool:
    """False: what a network scores is known once it is built."""
    return False


def build(
    network: str, *, num_classes: int, image_shape: tuple[int, int, int], pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    """`hf:network`, from the config.json in a folder or of a name on the Hub; `options` replace values in it.

    `pretrained` takes the weights beside it, but for a head of other classes. A name is fetched where `pretrained` is
    true, and is else looked for in the cache; no code of it is run. Errors as `build_student`.
    """
    student = f"hf:{network}"
    try:
        import transformers
    except ImportError:
        raise ValueError(f'{student} needs transformers: pip install "selfdistill[transformers]"') from None
    is_folder = Path(network).expanduser().is_dir()
    place = str(Path(network).expanduser()) if is_folder else network
    is_local = is_folder or not pretrained
    try:
        config = transformers.AutoConfig.from_pretrained(place, local_files_only=is_local, trust_remote_code=False)
    except Exception as error:
        advice = "give a folder with a config.json" if is_folder else "student.pretrained=true fetches it"
        raise ValueError(f"{student} cannot be opened ({one_line(error)[:120]}); {advice}") from error
    known = config.to_dict()
    facts = {"num_channels": image_shape[0], "image_size": image_shape[1] if image_shape[1] == image_shape[2] else None}
    changes = {name: facts[name] for name in SIZE_OPTIONS if name in known and facts[name] is not None}
    config.update({"num_labels": num_classes, **changes, **options})
    is_segmenter = any("Segmentation" in name for name in config.architectures or [])
    auto = (
        transformers.AutoModelForSemanticSegmentation if is_segmenter else transformers.AutoModelForImageClassification
    )
    try:
        if not pretrained:
            return ScoresAlone(auto.from_config(config, trust_remote_code=False))
        return ScoresAlone(
            auto.from_pretrained(
                place, config=config, ignore_mismatched_sizes=True, local_files_only=is_local, use_safetensors=True
            )
        )
    except Exception as error:
        raise build_error(student, error, options, pretrained=pretrained) from error
