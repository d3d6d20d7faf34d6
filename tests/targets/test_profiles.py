import importlib.resources
import re
import tomllib

import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_qat.errors import InvalidTargetError
from keras_qat.litert.format.operators import declarations
from keras_qat.targets import TARGETS, fast_kernels, get_target
from keras_qat.targets.quantities import QUANTITIES

FILES = [
    path
    for path in importlib.resources.files("keras_qat.targets").iterdir()
    if path.name.endswith(".toml")
]
ACTIONS = next(path for path in FILES if path.name == "actions.toml")
FAST = [fast_kernels(get_target(target)) for target in ("litert", "litert-arm64")]
PROFILES = [*map(get_target, TARGETS), get_target("edgetpu").fallback, *FAST]


KNOWN = {*vars(schema.BuiltinOperator), *declarations()}


def quantities_of(profile):
    limits = [*profile.every, *(x for each in profile.operators.values() for x in each.limits)]
    return {name for limit in limits for name in limit.quantities}


def test_profiles_are_all_files_but_the_actions():
    assert len(FILES) == len(PROFILES) + 1


@pytest.mark.parametrize("wrong", ["edge-tpu", "EDGETPU", "litert-2.5", "", None, 3, ["litert"]])
def test_get_target_names_the_known_targets(wrong):
    with pytest.raises(
        InvalidTargetError,
        match="'edgetpu', 'ethos-u', 'litert', 'litert-arm64', 'reference', 'tflite-micro'",
    ):
        get_target(wrong)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_profile_has_sources(profile):
    assert profile.sources and profile.title and profile.consequence
    for source in profile.sources:
        assert source.url.startswith("https://") and source.what and source.version
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", source.date)


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_profile_names_known_operators_and_quantities(profile):
    assert profile.operators.keys() <= KNOWN
    assert quantities_of(profile) <= QUANTITIES.keys()


def test_profiles_and_actions_use_every_quantity():
    actions = tomllib.loads(ACTIONS.read_text())["actions"]
    used = {name for each in actions for name in each.get("when", {})}
    assert set().union(used, *map(quantities_of, PROFILES)) == QUANTITIES.keys()


def test_actions_name_known_operators_and_the_last_fits_all():
    actions = tomllib.loads(ACTIONS.read_text())["actions"]
    assert actions[-1].keys() == {"do"}
    for each in actions:
        assert set(each) <= {"operators", "limits", "when", "do"} and each["do"].endswith(".")
        assert set(each.get("limits", ())) <= QUANTITIES.keys()
        assert set(each.get("operators", ())) <= KNOWN


def test_profiles_of_accelerators_have_a_cpu_as_fallback():
    fallbacks = {each.name: each.fallback and each.fallback.name for each in PROFILES}
    assert fallbacks == {
        "edgetpu": "litert-2.5",
        "ethos-u": "tflite-micro",
        "litert": None,
        "litert-2.5": None,
        "litert-arm64": None,
        "reference": None,
        "tflite-micro": None,
        "xnnpack": "litert",
        "xnnpack-arm64": "litert-arm64",
    }
