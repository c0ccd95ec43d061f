"""What another language can say beside the English catalogue: texts that stand where they are declared, by their codes.

``python -m tests.translatable`` prints all of it, the catalogue's own sentences too, as a catalogue without words.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import polib

from core.analysis.metrics import METRICS
from core.config import workload_fields
from core.glossary import GLOSSARY
from core.pass_api.base import Phase, passes
from core.pass_api.options import declared
from tests.compile_messages import FOLDER

ROOT = Path(__file__).parent.parent


def declared_texts() -> dict[str, str]:
    """Titles, helps and definitions in English, under the codes that they are looked up by."""
    found = {}
    for one in passes:
        found |= {f"pass.{one.id}.title": one.title, f"pass.{one.id}.summary": one.summary}
        for option in declared(one.options).values():
            code = f"option.{option.owner}.{option.name}"
            found |= {f"{code}.label": option.label} | ({f"{code}.help": option.help} if option.help else {})
    found |= {f"phase.{one.title.lower().replace(' ', '-')}.title": one.title for one in Phase}
    for metric in METRICS:
        texts = {"title": metric.title, "definition": metric.definition, "source": metric.source}
        found |= {f"metric.{metric.id}.{name}": text for name, text in texts.items() if text}
    for name, field in workload_fields().items():
        found |= {f"workload.{name}.label": field.label, f"workload.{name}.help": field.help}
    return found | {f"term.{one.word.lower().replace(' ', '-')}.meaning": one.meaning for one in GLOSSARY}


def worded_calls() -> Iterator[tuple[Path, ast.Call, tuple[str, ...]]]:
    """Every ``worded(code, template, …)`` of the source, with its templates, which may be names that its file gives them."""
    for path in sorted((ROOT / "core").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for scope in _scopes(tree):
            known = {**_texts(tree), **_texts(scope)}
            for node, before in _calls(scope, known):
                templates = (before.get(one.id, "") if isinstance(one, ast.Name) else _text(one) for one in node.args[1:])
                yield path.relative_to(ROOT), node, tuple(templates)


def _scopes(tree: ast.Module) -> list[ast.AST]:
    """The module's own statements, and each function: a name may stand for one template here and for another there."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [tree, *functions]


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """What lies in a scope and in no function inside it, in order of lines."""
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, ast.FunctionDef):
            waiting[:0] = ast.iter_child_nodes(node)


def _calls(scope: ast.AST, known: dict[str, str]) -> Iterator[tuple[ast.Call, dict[str, str]]]:
    said = dict(known)
    for node in _own(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _text(node.value):
            said[node.targets[0].id] = _text(node.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "worded":
            yield node, dict(said)


def _texts(scope: ast.AST) -> dict[str, str]:
    found = {}
    for node in _own(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and _text(node.value):
            found[node.targets[0].id] = _text(node.value)
    return found


def _text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def worded_templates() -> dict[str, tuple[str, ...]]:
    """The English templates that stand where a reason is made, by code."""
    return {_text(call.args[0]): templates for _, call, templates in worded_calls()}


def english() -> dict[str, polib.POEntry]:
    """Everything that can be said in another language, by code: the catalogue, and what is declared or worded elsewhere."""
    found = {entry.msgid: entry for entry in polib.pofile(str(FOLDER / "en.po"))}
    texts = {code: (text,) for code, text in declared_texts().items()}
    for code, templates in (texts | worded_templates()).items():
        several = {"msgid_plural": code, "msgstr_plural": dict(enumerate(templates))} if len(templates) > 1 else {}
        found[code] = polib.POEntry(msgid=code, msgstr="" if several else templates[0], **several)
    return found


def main() -> None:
    """Print a catalogue without words, the English ones as comments."""
    for _, entry in sorted(english().items()):
        entry.comment = "\n".join(filter(None, (entry.comment, entry.msgstr, *entry.msgstr_plural.values())))
        entry.msgstr, entry.msgstr_plural = "", dict.fromkeys(entry.msgstr_plural, "")
        sys.stdout.write(f"{entry}\n")


if __name__ == "__main__":
    main()
