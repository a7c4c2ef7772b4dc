"""The classes of well-known sets, and their published colors."""

from collections.abc import Sequence

from .mask_values import Color

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CITYSCAPES = {  # https://www.cityscapes-dataset.com, in the order of labelTrainIds
    **{"road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156)},
    **{"fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30)},
    **{"traffic sign": (220, 220, 0), "vegetation": (107, 142, 35), "terrain": (152, 251, 152)},
    **{"sky": (70, 130, 180), "person": (220, 20, 60), "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70)},
    **{"bus": (0, 60, 100), "train": (0, 80, 100), "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32)},
}
CAMVID = {  # http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid, and the names that its 11 classes go by
    **{"animal": (64, 128, 64), "archway": (192, 0, 128), "bicyclist": (0, 128, 192), "bridge": (0, 128, 64)},
    **{"building": (128, 0, 0), "car": (64, 0, 128), "cartluggagepram": (64, 0, 192), "child": (192, 128, 64)},
    **{"column pole": (192, 192, 128), "fence": (64, 64, 128), "lanemkgsdriv": (128, 0, 192)},
    **{"lanemkgsnondriv": (192, 0, 64), "misc text": (128, 128, 64), "motorcyclescooter": (192, 0, 192)},
    **{"othermoving": (128, 64, 64), "parkingblock": (64, 192, 128), "pedestrian": (64, 64, 0)},
    **{"road": (128, 64, 128), "roadshoulder": (128, 128, 192), "sidewalk": (0, 0, 192)},
    **{"signsymbol": (192, 128, 128), "sky": (128, 128, 128), "suvpickuptruck": (64, 128, 192)},
    **{"trafficcone": (0, 0, 64), "trafficlight": (0, 64, 64), "train": (192, 64, 128), "tree": (128, 128, 0)},
    **{"truck bus": (192, 128, 192), "tunnel": (64, 0, 64), "vegetationmisc": (192, 192, 0), "wall": (64, 192, 0)},
    **{"pole": (192, 192, 128), "pavement": (0, 0, 192), "sign": (192, 128, 128)},
}
# https://github.com/CSAILVision/sceneparsing, color150, in the order of objectInfo150.txt
ADE20K_START = ("wall", "building", "sky")
ADE20K = bytes.fromhex(  # red, green, blue of each class
    "787878b4787806e6e650323204c8037878508c8c8ccc05ffe6e6e604fa07e005ffebff0796053d78784608ff33ff06528fff8cccff04"
    "ff3307cc46030066c83de6faff06330b66ffff0747ff09e00907e6dcdcdcff095c7009ff08ffd607ffe0ffb8060aff47ff290a07ffff"
    "e0ff086608ffff3d06ffc207ff7a0800ff14ff0829ff05990633ffeb0cffa0961400a3ff8c8c8cfa0a0f14ff001fff00ff1f00ffe000"
    "99ff000000ffff470000ebff00adff1f00ff0bc8c8ff520000fff5003dff00ff7000ff85ff0000ffa300ff6600c2ff00008fff33ff00"
    "0052ff00ff2900ffad0a00ffadff0000ff99ff5c00ff00ffff00f5ff0066ffad00ff0014ffb8b8001fff00ff3d0047ffff00cc00ffc2"
    "00ff52000aff0070ff3300ff00c2ff007aff00ffa3ff990000ff0aff70008fff005200ffa3ff00ffeb0008b8aa8500ff00ff5cb800ff"
    "ff001f00b8ff00d6ffff00705cff0000e0ff70e0ff46b8a0a300ff9900ff47ff00ff00a3ffcc00ff008f00ffeb85ff00ff00ebf500ff"
    "ff007afff5000abed4d6ff0000ccff1400ffffff000099ff0029ff00ffcc2900ff29ff00ad00ff00f5ff4700ff7a00ff00ffb8005cff"
    "b8ff000085ffffd60019c2c266ff005c00ff"
)


def find_known_colors(classes: Sequence[str]) -> tuple[Color, ...] | None:
    """Finds the published colors of these classes, if all of them are classes of one well-known set."""
    names = [" ".join(name.lower().replace("_", " ").replace("-", " ").split()) for name in classes]
    for palette in (CITYSCAPES, CAMVID, VOC):
        if len(names) > 2 and all(name in palette for name in names):
            return tuple(palette[name] for name in names)
    if len(names) == len(ADE20K) // 3 and tuple(names[:3]) == ADE20K_START:
        return tuple(tuple(ADE20K[3 * k : 3 * k + 3]) for k in range(len(names)))
    return None


def _compute_voc_color(value: int) -> Color:
    """The color of a value in VOC's masks: its bits go to red, green and blue in turn, there from the highest down."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (value >> (3 * bit + channel) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]


VOC = {name: _compute_voc_color(value) for value, name in enumerate(VOC_CLASSES)}
