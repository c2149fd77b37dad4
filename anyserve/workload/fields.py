"""Which keys may stand at a place of the scenario file, for hints that name the right one."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from anyserve.workload.schema import ScenarioFile
from anyserve.workload.yaml_nodes import Loc


def keys_at(loc: Loc) -> set[str]:
    """The keys that the mapping at `loc` may hold; empty where any name may stand."""
    places: list[Any] = [ScenarioFile]
    for part in loc:
        places = [inner for place in places for inner in _inside(place, part)]
    return {name for place in places for name in _keys_of(place)}


def _keys_of(place: Any) -> Iterator[str]:
    for model in _models(place):
        for name, field in model.model_fields.items():
            yield field.alias or name


def _inside(place: Any, part: str | int) -> Iterator[Any]:
    """What the types that `place` may be hold under `part`."""
    place = _bare(place)
    origin = get_origin(place)
    if origin in {Union, UnionType}:
        for choice in get_args(place):
            yield from _inside(choice, part)
    elif origin is dict:
        yield get_args(place)[1]
    elif origin is list:
        yield get_args(place)[0]
    elif isinstance(place, type) and issubclass(place, BaseModel):
        for name, field in place.model_fields.items():
            if (field.alias or name) == part:
                yield field.annotation


def _models(place: Any) -> Iterator[type[BaseModel]]:
    place = _bare(place)
    if get_origin(place) in {Union, UnionType}:
        for choice in get_args(place):
            yield from _models(choice)
    elif isinstance(place, type) and issubclass(place, BaseModel):
        yield place


def _bare(place: Any) -> Any:
    while get_origin(place) is Annotated:
        place = get_args(place)[0]
    return place
