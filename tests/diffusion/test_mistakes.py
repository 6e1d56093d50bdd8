"""The laws have teeth: each deliberate mistake below breaks at least one of them.

A mistake is one edit of the source of `path.py`, `solvers.py` or the loop of `reference.py`; the
edited module is run through the same laws as the real one.
"""

import inspect
from dataclasses import replace
from functools import cache
from types import ModuleType

import numpy as np
import pytest
import reference
from laws import LAWS, RELEASED, THEORY, Code, Law

from sr_cli.diffusion import path, solvers
from sr_cli.errors import UsageError

Edit = tuple[ModuleType, str, str]

# What theory alone finds out.
MISTAKES: dict[str, Edit] = {
    "u: r not squared": (solvers, "x = ratio * r ", "x = ratio "),
    "x0: r not squared": (solvers, "a_t * (1 - r**2) * np", "a_t * (1 - r) * np"),
    "r ignores the shift": (solvers, "path.a[s] / a_t", "path.alpha[s] / path.alpha[t]"),
    "m_s with the wrong sign": (solvers, "- x * path.m[s]", "+ x * path.m[s]"),
    "m_s left out": (solvers, "path.m[t] - x * path.m[s]", "path.m[t]"),
    "x and y swapped": (solvers, "(self.x, self.y,", "(self.y, self.x,"),
    "noise without the root": (solvers, "math.sqrt(1 - r**2)", "(1 - r**2)"),
    "noise with r not squared": (solvers, "math.sqrt(1 - r**2)", "math.sqrt(1 - r)"),
    "noise at the wrong sigma": (solvers, "sigma_t * math", "path.sigma[s] * math"),
    "noise of the step before": (reference, "noise(i) if", "noise(i - 1) if"),
    "noise left out": (reference, "noise(i) if step.noise", "0.0 if step.noise"),
    "D with the wrong sign": (solvers, "x0 += -a_t", "x0 += a_t"),
    "D: difference not squared": (solvers, "(lam_t - lam_s) ** 2", "abs(lam_t - lam_s)"),
    "D over λ_t": (solvers, "** 2 / lam_s", "** 2 / lam_t"),
    "U halved": (solvers, "2 * (slopes[0]", "(slopes[0]"),
    "U with the wrong sign": (solvers, "x0 += a_t * ((lam_s", "x0 -= a_t * ((lam_s"),
    "U: logarithm with the wrong sign": (solvers, "- lam_t**2 * math", "+ lam_t**2 * math"),
    "U: logarithm left out": (solvers, " - lam_t**2 * math.log(r)", ""),
    "U: 3λ_t as λ_t": (solvers, "lam_s - 3 * lam_t", "lam_s - lam_t"),
    "U over one interval": (solvers, "(lam[0] - lam[2])", "(lam[0] - lam[1])"),
    "correction not halved": (solvers, "(lam[0] - lam[1]) / 2", "(lam[0] - lam[1])"),
    "variants swapped": (solvers, 'variant == "paper"', 'variant == "corrected"'),
    "history oldest first": (
        reference,
        "[denoise(x, step), *history][:MAX_ORDER]",
        "[*history, denoise(x, step)][-MAX_ORDER:]",
    ),
    "history not advanced": (reference, "*history][:MAX", "*history[-2:]][:MAX"),
    "history of copies": (
        reference,
        "[denoise(x, step), *history][:MAX_ORDER]",
        "[denoise(x, step)] * MAX_ORDER",
    ),
    "one order too low": (solvers, "max(0, i - order)", "min(i - 1, max(0, i + 1 - order))"),
    "nodes oldest first": (solvers, "tuple(reversed(times", "tuple((times"),
    "last step x0 ignored": (solvers, 'last_step == "x0"', 'last_step == ""'),
    "last step x0 with noise": (solvers, "x0=(1.0,), noise=0.0)", "x0=(1.0,))"),
    "last step x0 with y": (solvers, "x=0.0, y=0.0, x0", "x=0.0, x0"),
    "last step mean ignored": (solvers, 'last_step == "mean"', 'last_step == ""'),
    "last step mean with noise": (solvers, "x0=x0, noise=0.0)", "x0=x0)"),
    "last step mean not over α": (solvers, "x0 = tuple(weight / alpha", "x0 = tuple(weight"),
    "last step mean: y not over α": (solvers, "y=step.y / alpha", "y=step.y"),
    "a without 1 − η": (path, "return self.alpha * (1 - self.eta)", "return self.alpha"),
    "m without α": (path, "return self.alpha * self.eta", "return self.eta"),
    "m as a": (path, "return self.alpha * self.eta", "return self.alpha * (1 - self.eta)"),
    "σ without the root": (path, "np.sqrt(1 - alpha_bar), zero", "1 - alpha_bar, zero"),
    "η runs backwards": (path, "(1 - np.cos", "(1 + np.cos"),
    "η = 1 too late": (path, "eta[:t1] = ", "eta[1 : t1 + 1] = "),
    "times off by one": (path, "(t1 - 1) / steps", "t1 / steps"),
}

# What is right in theory and yet not what the released sampler does.
DEPARTURES: dict[str, Edit] = {
    "times rounded down": (path, "round(position)", "int(position)"),
    "times rounded half up": (path, "round(position)", "int(position + 0.5)"),
    "η sampled from 0 to 1": (path, "linspace(0.001, 0.999, t1))", "linspace(1e-6, 1 - 1e-6, t1))"),
    "start from y alone": (solvers, "float(path.sigma[t])", "0.0"),
    "strides not summed": (path, "position += stride", "position = len(times) * stride"),
    "corrected for paper": (solvers, 'variant == "paper"', "variant is None"),
}


def edited(module: ModuleType, old: str, new: str) -> ModuleType:
    """A copy of `module` with the one place that reads `old` reading `new`."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} is not found just once in {module.__name__}"
    copy = ModuleType(module.__name__)
    exec(compile(source.replace(old, new), module.__name__, "exec"), copy.__dict__)
    return copy


@cache
def breaks(law: Law, edit: Edit) -> bool:
    """Whether the edited code breaks the law; to refuse the law's valid input breaks it too."""
    module = edited(*edit)
    code = replace(Code(), **{module.__name__.rpartition(".")[2]: module})
    try:
        with np.errstate(all="ignore"):
            law(code)
    except (AssertionError, UsageError):
        return True
    return False


@pytest.mark.parametrize("name", MISTAKES)
def test_theory_finds_the_mistake(name: str) -> None:
    assert any(breaks(law, MISTAKES[name]) for law in THEORY)


@pytest.mark.parametrize("name", DEPARTURES)
def test_golden_arrays_find_the_departure(name: str) -> None:
    assert any(breaks(law, DEPARTURES[name]) for law in RELEASED)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_each_law_finds_something(law: Law) -> None:
    assert any(breaks(law, edit) for edit in [*MISTAKES.values(), *DEPARTURES.values()])


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_a_harmless_edit_breaks_no_law(law: Law) -> None:
    assert not breaks(law, (solvers, "x = ratio * r ", "x = r * ratio "))
    assert not breaks(law, (path, "return self.alpha * self.eta", "return self.eta * self.alpha"))
