"""How a file in a folder becomes a feature: discovery by folder, registration by decorator."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from core.errors import Refusal
from core.messages.reason import Reason


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_HasId)


class Registry(Generic[T]):
    """Objects of one sort by their id. Iterates in registration order; a second object of the same id raises."""

    def __init__(self, what: str, package: str) -> None:
        self.what = what
        self.package = package
        self._items: dict[str, T] = {}
        self._asked = False
        self._discovered = False  # to the end
        self._discovering = threading.RLock()

    def register(self, make: Callable[[], T]) -> Callable[[], T]:
        """Class decorator: builds one object of the class and registers it."""
        item = make()
        assert item.id not in self._items, f"two {self.what} objects have the id {item.id!r}"
        self._items[item.id] = item
        return make

    def __iter__(self) -> Iterator[T]:
        self._discover()
        return iter(tuple(self._items.values()))

    def get(self, item_id: str) -> T:
        """The object of that id; ``Refusal`` with the known ids if there is none."""
        self._discover()
        if item_id not in self._items:
            raise Refusal(Reason("registry.no-such", what=self.what, item_id=item_id, items=tuple(sorted(self._items))))
        return self._items[item_id]

    def find(self, item_id: str) -> T | None:
        """The object of that id, None where there is none (an older or newer version's, in a file)."""
        self._discover()
        return self._items.get(item_id)

    def _discover(self) -> None:
        if self._discovered:
            return
        with self._discovering:  # another thread waits until all are there; a module that asks while it is imported does not
            if not self._asked:
                self._asked = True
                discover(self.package)
                self._discovered = True


def discover(package: str) -> list[str]:
    """Import every module of a package's folder and return their full names (a frozen build asks the same)."""
    root = importlib.import_module(package)
    names = [f"{package}.{module.name}" for module in pkgutil.iter_modules(root.__path__)]
    for name in names:
        importlib.import_module(name)
    return names
