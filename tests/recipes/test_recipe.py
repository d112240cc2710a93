import dataclasses
from dataclasses import dataclass
from typing import Literal

import pytest

from bestiary import zoo
from bestiary.backbones.resnet import resnet18, resnet50
from bestiary.errors import UsageError
from bestiary.recipes.recipe import Recipe, Stage, attribute_docs, convert, type_name
from bestiary.training.fitting import FitSettings
from bestiary.training.settings import Settings


@dataclass
class Fields:
    """Something.

    Attributes:
        one: the first,
            on two lines.
        two: the second.
    """

    one: int = 1
    two: int = 2


@pytest.mark.parametrize("name", list(zoo.ZOO))
def test_every_field_of_every_recipe_is_documented_and_named_once(name: str) -> None:
    recipe = zoo.recipe_of(name)
    fields = recipe.fields()
    kinds = {type(part): part for part in (recipe.settings, *(stage.settings for stage in recipe.stages))}
    settings = {f.name for part in kinds.values() for f in dataclasses.fields(part)}
    pictures = {f.name for f in dataclasses.fields(recipe.pictures)}
    plain = {name for name in fields if "." not in name}
    assert plain == settings | pictures | set(recipe.options)
    assert len(plain) == len(settings) + len(pictures) + len(recipe.options), "a name means one thing"
    assert len(fields) - len(plain) == sum(len(dataclasses.fields(stage.settings)) for stage in recipe.stages)
    assert [f.name for f in fields.values() if not f.doc] == []


@pytest.mark.parametrize("name", list(zoo.ZOO))
def test_every_field_survives_being_written_as_text(name: str) -> None:
    recipe = zoo.recipe_of(name)
    for field in recipe.fields().values():
        text = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else str(field.default)
        again = recipe.with_fields({field.name: text})
        assert again.fields()[field.name].default == field.default, field.name


@pytest.mark.parametrize("name", list(zoo.ZOO))
def test_arguments_of_the_recipe_are_arguments_of_the_constructor(name: str) -> None:
    entry = zoo.ZOO[name]
    sizes = set(entry.recipe().pictures.arguments())
    settings = [stage.settings for stage in entry.recipe().stages] or [entry.recipe().settings]
    fitted = all(isinstance(one, FitSettings) for one in settings)
    assert not (fitted and sizes), "only a recipe of gradient steps has sizes that the constructor must agree with"
    assert not sizes or sizes & set(entry.takes()), "the recipe's sizes reach no argument of the constructor"
    told = entry.recipe().with_fields({"tile": 64}).pictures.arguments() if "tile" in entry.recipe().fields() else {}
    assert set(told) <= set(entry.takes()) | sizes, "a field reaches no argument of the constructor"


def recipe() -> Recipe:
    return zoo.ZOO["fasterrcnn_resnet18_fpn"].recipe()


def test_fields_reach_the_part_that_has_them() -> None:
    changed = recipe().with_fields({"epochs": "3", "short_side": 320, "lr": 0.5})
    assert (changed.settings.epochs, changed.pictures.short_side, changed.settings.lr) == (3, 320, 0.5)
    assert recipe().settings.epochs != 3, "the first recipe is untouched"


def staged() -> Recipe:
    first, second = Settings(epochs=2, lr=0.1), Settings(epochs=5, lr=0.1, train_only=("head",))
    stages = (Stage("whole", first), Stage("svm", FitSettings()), Stage("head", second))
    return dataclasses.replace(recipe(), settings=FitSettings(seed=7), stages=stages)


def test_a_field_is_meant_for_every_stage_or_for_one() -> None:
    def of_stages(changed: Recipe, name: str) -> list[object]:
        return [getattr(stage.settings, name, None) for stage in changed.stages]

    assert staged().settings == staged().stages[0].settings, "the first stage's settings stand for the recipe's"
    assert of_stages(staged().with_fields({"lr": "0.5", "seed": 3}), "lr") == [0.5, None, 0.5]
    assert of_stages(staged().with_fields({"lr": "0.5", "seed": 3}), "seed") == [3, 3, 3]
    own = staged().with_fields({"head.lr": "0.25", "lr": 0.5, "svm.seed": 4})
    assert (of_stages(own, "lr"), of_stages(own, "seed")) == ([0.5, None, 0.25], [0, 4, 0])
    assert own.settings.lr == 0.5
    with pytest.raises(UsageError, match=r"Did you mean --head\.epochs\?"):
        staged().with_fields({"head.epoch": 3})
    with pytest.raises(UsageError, match=r"--head\.lr"):
        staged().with_fields({"head.lr": "fast"})


def test_what_is_written_of_stages_is_what_they_have_of_their_own() -> None:
    written = {name: value for name, value in staged().to_dict().items() if "." in name}
    assert written == {"head.epochs": 5, "head.train_only": ["head"]}
    assert set(staged().fields_apart()) - set(recipe().fields()) == set(written)


def test_stages_have_different_names() -> None:
    with pytest.raises(UsageError, match="a name each"):
        dataclasses.replace(recipe(), stages=(Stage("one", Settings()), Stage("one", Settings())))


def test_unknown_field_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Did you mean --short-side\?"):
        recipe().with_fields({"shortside": 3})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "three"),
        ("epochs", "2.5"),
        ("epochs", 2.5),
        ("lr", "fast"),
        ("lr", True),
        ("channels_last", "maybe"),
        ("optimizer", "sdg"),
        ("betas", "0.9"),
        ("betas", "0.9,x"),
        ("steps", "soon"),
    ],
)
def test_ill_typed_values_say_what_was_wanted(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=r"got .*, wanted ") as caught:
        recipe().with_fields({name: value})
    assert "--" in str(caught.value)


def test_conversions() -> None:
    assert convert("none", int | None, "x") is None
    assert convert("7", int | None, "x") == 7
    assert convert("1,2,3", tuple[int, ...], "x") == (1, 2, 3)
    assert convert("", tuple[int, ...], "x") == ()
    assert convert([1, 2], tuple[float, float], "x") == (1.0, 2.0)
    assert convert("no", bool, "x") is False
    assert convert(3, float, "x") == 3.0
    assert convert("b", Literal["a", "b"], "x") == "b"
    assert convert("0.5,1", tuple[float, float] | None, "x") == (0.5, 1.0)


def test_type_names_read_as_a_person_writes_them() -> None:
    assert type_name(int | None) == "int or none"
    assert type_name(tuple[int, ...]) == "int,..."
    assert type_name(tuple[float, float]) == "float,float"
    assert type_name(Literal["a", "b"]) == "a|b"


def test_docs_of_fields_come_from_the_docstring() -> None:
    assert attribute_docs(Fields) == {"one": "the first, on two lines.", "two": "the second."}


def test_arguments_of_the_constructor_are_fields_too() -> None:
    recipe = zoo.recipe_of("unet_padded").with_fields({"width": "32"})
    assert recipe.arguments == {"width": 32}
    assert recipe.fields()["width"].default == 32
    assert "predict_size" not in recipe.fields(), "a size is said once, by the pictures' fields"
    with pytest.raises(UsageError, match="wanted int"):
        recipe.with_fields({"width": "wide"})


def test_docs_of_a_class_include_its_bases_and_its_own_win() -> None:
    class Below(Fields):
        """More.

        Attributes:
            two: said again.
            three: the third.
        """

    assert attribute_docs(Below) == {"two": "said again.", "three": "the third.", "one": "the first, on two lines."}


def test_docs_of_arguments_may_stand_in_another_function() -> None:
    assert attribute_docs(resnet50, "Args:") == attribute_docs(resnet18, "Args:") != {}


def test_inherited_fields_are_listed_after_a_recipes_own() -> None:
    names = list(zoo.recipe_of("unet_padded_small").fields())
    assert names.index("border_weights") < names.index("brightness") < names.index("hue") < names.index("width")
