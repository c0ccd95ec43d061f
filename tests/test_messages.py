"""Sentences as values: what a reason says, that files keep it, and that source and catalogue know the same codes and facts."""

from __future__ import annotations

import ast
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polib
import pytest

from core.errors import Refusal
from core.messages import catalogue
from core.messages.reason import DEPTH, Reason, of_text
from tests.compile_messages import FOLDER, catalogues, compiled

ROOT = Path(__file__).parent.parent
FLOORS = ("core", "gui", "profilers")
ENGLISH = FOLDER / "en.po"


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for floor in FLOORS:
        for path in sorted((ROOT / floor).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


def made() -> Iterator[tuple[str, ast.Call]]:
    """Every place in the source where a reason is made, with where it is."""
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason":
                yield f"{path}:{node.lineno}", node


def facts_in(words: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(words) if name is not None}


def entry_facts(entry: polib.POEntry) -> set[str]:
    """The facts of an entry: a plural form may leave out the number that chose it ("one moment")."""
    plural = {"n"} if entry.msgid_plural else set()
    return plural.union(*(facts_in(words) for words in (entry.msgstr, *entry.msgstr_plural.values())))


@pytest.fixture(scope="module")
def english() -> dict[str, polib.POEntry]:
    return {entry.msgid: entry for entry in polib.pofile(str(ENGLISH), check_for_duplicates=True)}


@pytest.fixture
def polish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A language with three forms of number, of one sentence; everything else is said in English."""
    text = tmp_path / "xx.po"
    text.write_text(
        'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n"Plural-Forms: nplurals=3; plural=(n==1 ? 0 : '
        'n%10>=2 && n%10<=4 && (n%100<12 || n%100>14) ? 1 : 2);\\n"\n\nmsgid "toy.files"\nmsgid_plural "toy.files"\n'
        'msgstr[0] "{n} plik {name}"\nmsgstr[1] "{n} pliki {name}"\nmsgstr[2] "{n} plików {name}"\n',
        encoding="utf-8",
    )
    read = catalogue.resources.data
    monkeypatch.setattr(catalogue.resources, "data", lambda name: compiled(text) if name == "messages/xx.mo" else read(name))
    yield
    catalogue._catalogue.cache_clear()


def test_every_code_in_the_source_is_in_the_catalogue_with_exactly_its_facts(english: dict[str, polib.POEntry]) -> None:
    wrong = []
    for place, call in made():
        code = call.args[0] if call.args else None
        spread = any(word.arg is None for word in call.keywords)
        if spread or not (isinstance(code, ast.Constant) and isinstance(code.value, str)):
            if not place.startswith("core/messages/reason.py"):  # which reads them from files
                wrong.append(f"{place}: the code and the names of facts are written out where a reason is made")
            continue
        entry = english.get(code.value)
        if entry is None:
            wrong.append(f"{place}: the catalogue has no {code.value}")
        elif (given := {word.arg for word in call.keywords}) != entry_facts(entry):
            wrong.append(f"{place}: {code.value} is told with {sorted(given)}, the catalogue says {sorted(entry_facts(entry))}")
    assert wrong == []


def test_every_code_in_the_catalogue_is_in_the_source(english: dict[str, polib.POEntry]) -> None:
    used = {call.args[0].value for _, call in made() if call.args and isinstance(call.args[0], ast.Constant)}
    assert sorted(set(english) - used - {"text"}) == []


def test_a_code_begins_with_its_room(english: dict[str, polib.POEntry]) -> None:
    used = [(place, call.args[0].value) for place, call in made() if call.args and isinstance(call.args[0], ast.Constant)]
    assert [(place, code) for place, code in used if "." not in code and code != "text"] == []


@pytest.mark.parametrize("path", catalogues(), ids=lambda path: path.stem)
def test_the_compiled_catalogue_is_that_of_the_text(path: Path) -> None:
    """``python -m tests.compile_messages`` writes it."""
    assert path.with_suffix(".mo").read_bytes() == compiled(path)


@pytest.mark.parametrize("path", catalogues(), ids=lambda path: path.stem)
def test_every_form_of_every_language_tells_the_facts_of_english(path: Path, english: dict[str, polib.POEntry]) -> None:
    for entry in polib.pofile(str(path)):
        assert entry_facts(entry) == entry_facts(english[entry.msgid]), entry.msgid
        assert entry.msgstr or entry.msgstr_plural, entry.msgid


def test_a_reason_is_told_with_units_and_with_clauses_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"toy.outer": "{name!r} needs {needed_bytes:size}: {why} ({names})", "toy.inner": "{share:.0%} left"}
    monkeypatch.setattr("core.messages.reason.template", lambda code, n, language: words.get(code))
    inner = Reason("toy.inner", share=0.25)
    told = Reason("toy.outer", name="a{b}", needed_bytes=3 * 2**20, why=inner, names=("x", "y"))
    assert str(told) == "'a{b}' needs 3.00 MiB: 25% left (x, y)"
    assert f"{told}" == told.say("en") == str(told)


def test_equal_reasons_are_equal_whatever_a_file_wrote_beside_them() -> None:
    one = of_text("as it is {not a fact}")
    back = Reason.from_json({**one.as_json(), "text": "in other words"})
    assert back == one
    assert hash(back) == hash(one)
    assert str(back) == "as it is {not a fact}"
    assert Reason("text", text="other") != one


def test_a_sentence_of_an_older_file_is_shown_as_it_is() -> None:
    assert str(Reason.from_json("the model has no tokenizer {}")) == "the model has no tokenizer {}"


def test_a_code_of_a_newer_version_is_told_in_its_written_words() -> None:
    why = {"code": "newer.clause", "facts": {}, "text": "inside"}
    value = {"code": "newer.code", "facts": {"n": 3, "why": why}, "text": "3 of it"}
    found = Reason.from_json(value)
    assert str(found) == "3 of it"
    assert str(found.facts["why"]) == "inside"
    assert found.as_json() == value


@pytest.mark.parametrize("value", [None, 3, [], {}, {"code": 1, "facts": {}}, {"code": "text"}, {"code": "text", "facts": []}])
def test_what_is_no_reason_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="code with facts"):
        Reason.from_json(value)


def test_facts_of_a_file_that_make_no_sense_do_not_stop_the_telling() -> None:
    assert str(Reason.from_json({"code": "text", "facts": {}, "text": "written"})) == "written"
    deep: object = "end"
    for _ in range(DEPTH + 1):
        deep = {"code": "text", "facts": {"text": deep}}
    with pytest.raises(ValueError, match="too deep"):
        Reason.from_json(deep)


def test_a_catalogue_chooses_the_form_of_a_number_and_falls_back_to_english(polish: None) -> None:
    told = [Reason("toy.files", n=n, name="a").say("xx") for n in (1, 3, 5, 22)]
    assert told == ["1 plik a", "3 pliki a", "5 plików a", "22 pliki a"]
    assert of_text("same").say("xx") == "same"


def test_only_a_language_with_a_catalogue_is_spoken() -> None:
    assert catalogue.languages()[0] == "en"
    catalogue.speak("en")
    with pytest.raises(ValueError, match="no catalogue of 'tlh'"):
        catalogue.speak("tlh")


def test_a_refusal_carries_its_reason() -> None:
    assert Refusal("Do this.").reason == of_text("Do this.")
    refusal = Refusal(of_text("Do that."), can_override=True)
    assert (str(refusal), refusal.can_override) == ("Do that.", True)


def test_the_first_sentence_needs_nothing_beside_the_standard_library() -> None:
    """Every way into the program passes here; gettext and the catalogue take 5 ms."""
    code = (
        "import sys; before = set(sys.modules); from core.messages.reason import of_text; str(of_text('x')); "
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    foreign = {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names) - {"core", "resources"}
    assert foreign == set()
