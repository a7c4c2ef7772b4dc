"""The early classifier that teaches the student."""

from helpers.methods import method_and_batch


def test_the_classifier_reads_the_second_map_through_a_gate_unless_told_otherwise():
    for settings, channels in (({}, 12), ({"level": 1}, 8)):
        method, _ = method_and_batch("drg", **settings)
        assert method.early_exit.gate.block[0].in_channels == channels
        assert method.early_exit.fc.in_features == 16
