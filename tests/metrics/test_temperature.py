"""The temperature with the lowest NLL, against scipy, and where there is none."""

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from selfdistill.metrics import temperature
from selfdistill.metrics.temperature import fit_temperature, nll_at_temperature


@pytest.mark.parametrize(("classes", "scale", "right"), [(2, 1.0, 0.7), (10, 30.0, 0.6), (3, 0.05, 0.9)])
def test_no_other_temperature_has_a_lower_nll(monkeypatch, classes, scale, right):
    monkeypatch.setattr(temperature, "AT_ONCE", 64)  # several blocks of rows
    logits = scale * torch.randn(300, classes)
    target = torch.where(torch.rand(300) < right, logits.argmax(1), torch.randint(classes, (300,)))

    def nll(t):
        return F.cross_entropy(logits.double() / t, target).item()

    best = minimize_scalar(nll, bounds=(0.01, 100), method="bounded", options={"xatol": 1e-9})
    fitted = fit_temperature(logits, target)
    assert fitted == pytest.approx(best.x, rel=1e-3)
    assert nll_at_temperature(logits, target, fitted) == pytest.approx(nll(fitted), rel=1e-12)
    assert nll(fitted) <= best.fun + 1e-12


def test_a_few_looks_at_the_scores_are_enough(monkeypatch):
    looks, compute = [], temperature._compute_slope
    monkeypatch.setattr(temperature, "_compute_slope", lambda *args: looks.append(args) or compute(*args))
    logits = 3 * torch.randn(500, 6)
    fit_temperature(logits, torch.where(torch.rand(500) < 0.6, logits.argmax(1), torch.randint(6, (500,))))
    assert len(looks) <= 12  # one more takes a quarter of a second where there are a million pixels


def test_scores_that_were_divided_by_a_temperature_have_it_back():
    logits = torch.randn(20_000, 5, dtype=torch.float64)
    target = torch.distributions.Categorical(logits=logits).sample()
    calibrated = fit_temperature(logits.float(), target)
    assert calibrated == pytest.approx(1, abs=0.05)
    assert fit_temperature(7 * logits.float(), target) == pytest.approx(7 * calibrated, rel=1e-4)


def test_the_bounds_are_given_where_nothing_lies_between_them():
    logits, target = torch.randn(50, 4), torch.randint(4, (50,))
    assert fit_temperature(logits, logits.argmax(1)) == temperature.COLDEST
    assert fit_temperature(logits, logits.argmin(1)) == temperature.HOTTEST
    assert fit_temperature(torch.zeros(50, 4), target) == temperature.HOTTEST


@pytest.mark.parametrize("logits", [torch.zeros(0, 3), torch.tensor([[0.0, float("nan")]])])
def test_what_has_no_temperature_is_refused(logits):
    with pytest.raises(ValueError, match="finite class scores of at least one label"):
        fit_temperature(logits, torch.zeros(len(logits), dtype=torch.int64))
