"""Networks for small images, which work on any image size and number of channels.

None reduces the image in its stem, and nothing works in place. Each runs its children one after another, a stage in one
`layerN` (of a VGG `blockN`). Its `feature_info` (timm's vocabulary) names the submodules that return the stages' maps,
rectified in all but MobileNetV2, whose stages end without an activation.
"""
