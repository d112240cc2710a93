"""The table of names: what each entry says, and what a system made from it remembers."""

import inspect
import re

import pytest
import torch

from bestiary import zoo
from bestiary.errors import UsageError
from bestiary.recipes.recipe import attribute_docs
from bestiary.training.settings import Settings

NAMES = list(zoo.ZOO)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_that_of_its_constructor(name: str) -> None:
    entry = zoo.find(name)
    made = entry.build.__name__
    assert made == name or inspect.isclass(entry.build) or made == f"{name}_classifier"
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", name)
    assert entry.paper.strip() == entry.paper
    assert not entry.note.endswith(".")


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_has_a_default_and_a_meaning(name: str) -> None:
    build = zoo.find(name).build
    parameters = inspect.signature(build).parameters
    assert next(iter(parameters)) == "categories"
    assert [p.name for p in parameters.values() if p.default is inspect.Parameter.empty] == []
    assert [key for key in parameters if not attribute_docs(build, "Args:").get(key)] == []


@pytest.mark.parametrize("name", [n for n in NAMES if isinstance(zoo.ZOO[n].recipe().settings, Settings)])
def test_a_system_is_built_as_its_recipe_says_and_remembers_it(name: str) -> None:
    said = zoo.find(name).recipe().pictures.arguments()
    known = {key: value for key, value in said.items() if key in zoo.find(name).takes()}
    with torch.device("meta"):
        system = zoo.build(name, ["a", "b"], known)
    assert (system.model_name, dict(system.arguments)) == (name, known)
    own = [key for key in known if hasattr(system, key) and key not in system.further_arguments]
    assert {key: getattr(system, key) for key in own} == {key: known[key] for key in own}


def test_arguments_given_are_those_kept_and_the_callers_dictionary_is_left_alone() -> None:
    given = {"crop": 24, "views": "ten_crop"}
    with torch.device("meta"):
        system = zoo.build("resnet18_cifar", ["a", "b"], given)
        other = zoo.build("resnet18_cifar", ["a", "b"])
    given["crop"] = 8
    assert system.arguments == {"crop": 24, "views": "ten_crop"}
    assert other.arguments == {}
    assert (system.crop, other.crop) == (24, 32)


def test_every_task_lists_its_names_and_all_lists_are_the_zoo() -> None:
    tasks = {entry.task for entry in zoo.ZOO.values()}
    assert sorted(name for task in tasks for name in zoo.list_models(task)) == sorted(zoo.list_models())
    assert zoo.list_models() == NAMES


def test_far_names_get_the_whole_list() -> None:
    assert zoo.nearest("zzzz", ["one", "two"]) == "Known: one, two"
    assert zoo.nearest("ones", ["one", "two"]) == "Did you mean 'one'?"
    with pytest.raises(UsageError, match="`bestiary models` lists all"):
        zoo.find("qqqqqqqqqqqq")
