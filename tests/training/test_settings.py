import dataclasses
import json
import re

import pytest

from bestiary.errors import UsageError
from bestiary.training.settings import FREE_ON_RESUME, OPTIONAL_KINDS, Settings


def test_settings_survive_json() -> None:
    settings = Settings(
        milestones=(0.5, 40.0), freeze=("stem",), lr_factors=("head=10",), ema=0.99, steps=7, betas=(0.5, 0.9)
    )
    assert Settings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_absent_fields_keep_their_defaults() -> None:
    assert Settings.from_dict({"epochs": 3}) == Settings(epochs=3)


@pytest.mark.parametrize(
    ("wrong", "right"), [("epoch", "epochs"), ("weight_deacy", "weight_decay"), ("optimiser", "optimizer")]
)
def test_an_unknown_field_names_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UsageError, match=f"no setting is called '{wrong}'.*Did you mean {right}\\?"):
        Settings.from_dict({wrong: 1})


def test_a_field_like_no_other_names_none() -> None:
    with pytest.raises(UsageError) as caught:
        Settings.from_dict({"zzz": 1})
    assert caught.value.mend is None


@pytest.mark.parametrize(
    ("values", "where", "wanted"),
    [
        ({"epochs": 0}, "epochs", "at least 1"),
        ({"batch": 0}, "batch", "at least 1"),
        ({"accumulate": 0}, "accumulate", "at least 1"),
        ({"steps": 0}, "steps", "at least 1, or none"),
        ({"patience": 0}, "patience", "at least 1, or none"),
        ({"minutes": 0.0}, "minutes", "above 0"),
        ({"workers": -1}, "workers", "0 or more"),
        ({"seed": -1}, "seed", "0 or more"),
        ({"lr": 0.0}, "lr", "above 0"),
        ({"lr": float("nan")}, "lr", "finite"),
        ({"lr": float("inf")}, "lr", "finite"),
        ({"weight_decay": -1e-9}, "weight_decay", "0 or more"),
        ({"momentum": 1.0}, "momentum", "below 1"),
        ({"optimizer": "nesterov", "momentum": 0.0}, "momentum", "above 0 for nesterov"),
        ({"betas": (0.9, 1.0)}, "betas", "below 1"),
        ({"ema": 1.0}, "ema", "between 0 and 1"),
        ({"warmup_factor": 1.1}, "warmup_factor", "between 0 and 1"),
        ({"milestones": (0.9, 0.5)}, "milestones", "rising"),
        ({"milestones": (0.0,)}, "milestones", "above 0"),
        ({"clip_norm": 0.0}, "clip_norm", "above 0"),
        ({"device": " "}, "device", "cpu"),
        ({"lr_factors": ("head",)}, "lr_factors", "prefix=factor"),
        ({"lr_factors": ("=2",)}, "lr_factors", "prefix=factor"),
        ({"lr_factors": ("head=ten",)}, "lr_factors", "prefix=factor"),
        ({"lr_factors": ("head=-1",)}, "lr_factors", "prefix=factor"),
    ],
)
def test_bad_values_are_named(values: dict[str, object], where: str, wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings(**values)  # type: ignore[arg-type]
    assert caught.value.where == where
    assert wanted in caught.value.message
    assert "got" in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [("optimizer", "adamv", "adam"), ("schedule", "cosin", "cosine"), ("precision", "bf", "bf16")],
)
def test_a_wrong_choice_lists_the_choices(name: str, value: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"{name}: got '{value}', wanted one of .*Did you mean {near}"):
        Settings.from_dict({name: value})


@pytest.mark.parametrize(
    "values",
    [
        *({"epochs": "3"}, {"epochs": 3.5}, {"epochs": True}, {"epochs": None}, {"lr": "0.1"}, {"freeze": "stem"}),
        *({"freeze": [1]}, {"milestones": ["a"]}, {"milestones": [True]}, {"channels_last": 1}, {"ema": "x"}),
        *({"betas": [0.9]}, {"seed": None}),
    ],
)
def test_values_of_another_kind_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(values))}: got"):
        Settings.from_dict(values)


def test_whole_numbers_may_stand_for_floats() -> None:
    settings = Settings.from_dict({"lr": 1, "minutes": 2, "milestones": [8, 11]})
    assert (settings.lr, settings.minutes, settings.milestones) == (1.0, 2.0, (8.0, 11.0))
    assert isinstance(settings.lr, float)


def test_learning_rates_of_parts() -> None:
    assert Settings(lr_factors=("head=10", "a.b=0")).part_lr_factors() == {"head": 10.0, "a.b": 0.0}


def test_every_field_is_documented_and_the_lists_name_fields() -> None:
    names = {f.name for f in dataclasses.fields(Settings)}
    assert set(re.findall(r"^        (\w+): ", Settings.__doc__ or "", re.MULTILINE)) == names
    assert names >= FREE_ON_RESUME
    assert {f.name for f in dataclasses.fields(Settings) if f.default is None} == set(OPTIONAL_KINDS)
