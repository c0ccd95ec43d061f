"""Sentences as values: what a reason says, that files keep it, and that source and catalogue know the same codes and facts."""

from __future__ import annotations

import ast
import json
import re
import string
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polib
import pytest

from core.analysis.summary import summarize
from core.commands import report
from core.config import workload_fields
from core.errors import Refusal
from core.glossary import GLOSSARY
from core.messages import catalogue
from core.messages.reason import DEPTH, Reason, of_text, worded
from core.notices import Notice, Status
from core.pass_api.base import passes, summary_of, title_of
from core.pass_api.options import declared
from core.records.run import RunFacts, Unavailable, file_is_quantized, status_said
from core.session import codec
from tests import translatable
from tests.compile_messages import FOLDER, catalogues, compiled
from tests.support.folders import ROOT
from tests.support.sources import modules
from tests.support.synthetic import synthetic_run

ENGLISH = FOLDER / "en.po"


def made() -> Iterator[tuple[str, ast.Call]]:
    """Every place in the source where a reason is made, with where it is."""
    for path, _, tree in modules():
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
    assert (
        sorted(set(english) - used - {"text", "messages.and", "messages.or", "messages.between-sentences"}) == []
    )  # which no place in the source makes a reason of


def test_a_code_begins_with_its_room() -> None:
    """So that a translator knows where a sentence stands, and two rooms do not take one name for different things."""
    used = [(place, call.args[0].value) for place, call in made() if call.args and isinstance(call.args[0], ast.Constant)]
    wrong = []
    for place, code in used:
        floor, room = place.partition(":")[0].removesuffix(".py").split("/")[:2]
        if code.partition(".")[0] != (room if floor == "core" else floor) and code != "text":
            wrong.append((place, code))
    assert wrong == []


@pytest.mark.parametrize("path", catalogues(), ids=lambda path: path.stem)
def test_the_compiled_catalogue_is_that_of_the_text(path: Path) -> None:
    """``python -m tests.compile_messages`` writes it."""
    assert path.with_suffix(".mo").read_bytes() == compiled(path)


@pytest.mark.parametrize("path", catalogues(), ids=lambda path: path.stem)
def test_every_form_of_every_language_tells_the_facts_of_english(path: Path) -> None:
    english = translatable.english()
    for entry in polib.pofile(str(path)):
        assert entry_facts(entry) == entry_facts(english[entry.msgid]), entry.msgid
        assert entry.msgstr or entry.msgstr_plural, entry.msgid


SAID = re.compile(
    r"(^|_)(text|why|words?|warnings?|refus(ed|al)|told|sentences?|title|message|reasons?|notes?|detail|label|line|"
    r"summary|error|problem|refusal|apart|stopped|said)$"
)
"""Names of values that hold words for people, or the words of an error."""

FOREIGN = {
    "core/disk_space.py": "torch's compilers wrap the system's error in one of their own, whose number is lost",
    "core/execution/carriers/child_ending.py": "what faulthandler writes when a process dies",
    "core/execution/workload.py": "torch's allocator raises a plain RuntimeError",
    "core/machine_facts.py": "what the kernel writes of the processor",
    "core/models/gguf_conversion.py": "safetensors raises a plain error with the system's number in its words",
    "core/models/loading.py": "torch's allocator raises a plain RuntimeError",
    "core/native.py": "lines of a compiler",
    "core/plain_text.py": "formulas that a spreadsheet would carry out",
    "core/session/database.py": "DuckDB raises one class for a dozen troubles",
    "core/session/older_sentences.py": "what earlier versions wrote into files",
    "gui/setup/model_picker.py": "what a person types",
    "profilers/attribution.py": "labels that torch's profiler gives back",
}
"""Where words of others are read, because they give no code."""


def name_of(node: ast.expr) -> str:
    """The name that an expression ends on; of ``str(x)`` and ``x["why"]`` that of what is inside."""
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("lower", "strip", "rstrip", "lstrip", "casefold"):
            return name_of(node.func.value)
        return name_of(node.args[0]) if isinstance(node.func, ast.Name) and node.func.id == "str" and node.args else ""
    if isinstance(node, ast.Subscript):
        return node.slice.value if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str) else ""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def wordy(node: ast.expr) -> bool:
    """Whether it is a literal with a letter: punctuation and control characters are looked for in any text."""
    if isinstance(node, ast.Tuple):
        return any(wordy(one) for one in node.elts)
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and any(map(str.isalpha, node.value))


def is_read(node: ast.AST) -> bool:
    """Whether words for people are looked into here: ``"x" in why``, ``why == "x y"``, ``why.startswith("x")``."""
    if isinstance(node, ast.Compare):
        left, right, how = node.left, node.comparators[0], node.ops[0]
        if isinstance(how, ast.In | ast.NotIn):
            return bool(SAID.search(name_of(right))) and (wordy(left) or bool(SAID.search(name_of(left))))
        equal = isinstance(how, ast.Eq | ast.NotEq) and SAID.search(name_of(left))
        return bool(equal) and wordy(right) and " " in ast.unparse(right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        looks = node.func.attr in ("startswith", "endswith", "find", "index", "count")
        literal = isinstance(node.args[0], ast.Constant | ast.Tuple)
        return looks and bool(SAID.search(name_of(node.func.value))) and (wordy(node.args[0]) or not literal)
    return False


def words_read(tree: ast.AST) -> Iterator[int]:
    """Lines in which words for people are looked into."""
    for node in ast.walk(tree):
        if is_read(node):
            yield node.lineno  # type: ignore[attr-defined]


def test_no_logic_reads_words() -> None:
    """A text is for people: in another language, or said better, what read it would do something else."""
    found = [f"{path}:{line}" for path, _, tree in modules() if path not in FOREIGN for line in words_read(tree)]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        'x = "compil" in status.text',
        "x = [warning for warning in found.warnings if warning not in refused]",
        'x = any(word in str(item["why"]).lower() for word in ("memory",)) or "memory" in str(item["why"]).lower()',
        'x = verdict.word == "can\'t tell"',
        'x = sentence.startswith("None: ")',
        "x = [one for one in starts if sentence.startswith(one)]",
    ],
)
def test_reading_words_is_seen(code: str) -> None:
    assert list(words_read(ast.parse(code)))


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


def test_a_sentence_needs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be about files that cannot be opened, or about there being no more handles."""

    def unreadable(name: str) -> bytes:
        raise OSError("too many open files")

    monkeypatch.setattr(catalogue.resources, "data", unreadable)
    assert str(Reason("session.read-only", name="a")).startswith("a is read-only; ")


def test_the_first_sentence_needs_nothing_beside_the_standard_library() -> None:
    """Every way into the program passes here; gettext and the catalogue take 5 ms."""
    code = (
        "import sys; before = set(sys.modules); from core.messages.reason import of_text; str(of_text('x')); "
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    foreign = {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names) - {"core", "resources"}
    assert foreign == set()


def test_what_an_older_file_says_of_a_quantized_model_is_known_again() -> None:
    """The window tells it beside the quality cost, which it used to find by the sentence's first words."""
    note = "The model's file holds its weights in GGUF Q4_1 already, so this is what the passes cost on top of that. More."
    text = codec.to_json({"quality": {"notes": [note, "Another sentence."]}, "stopped": "as asked"})
    facts = codec.facts_from_json(text, {})
    assert facts.quality is not None
    assert facts.quality.notes == (file_is_quantized("GGUF Q4_1"), of_text("Another sentence."))
    assert str(facts.stopped) == "as asked"


def test_reasons_come_back_from_a_file_as_code_and_facts() -> None:
    why = Reason("analysis.no-moment-measured", status=status_said("cancelled"))
    facts = RunFacts(unavailable=(Unavailable("ttft_ns", why),), stopped=Reason("analysis.no-faster", n=4))
    written = json.loads(codec.facts_to_json(facts))
    assert written["stopped"] == {"code": "analysis.no-faster", "facts": {"n": 4}, "text": "no faster after 4 requests"}
    assert codec.facts_from_json(json.dumps(written), {}) == facts


REFUSE_IN_WORDS = frozenset({"cli", "commands", "gui"})
"""Rooms that still refuse in plain words. The list only gets shorter."""


def test_rooms_that_refuse_by_code_go_on_doing_so() -> None:
    plain = set()
    for path, _, tree in modules():
        floor, room = path.removesuffix(".py").split("/")[:2]
        room = room if floor == "core" else floor
        for node in ast.walk(tree):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Refusal", "NotWritten")
            if named and isinstance(node.args[0], ast.JoinedStr | ast.Constant):  # type: ignore[attr-defined]
                plain.add(room)
    assert plain == REFUSE_IN_WORDS


def test_a_report_of_an_older_file_without_a_prediction_has_none() -> None:
    old = {"id": "a", "title": "A", "options": {}, "changed_modules": 1, "summary": "s", "prediction": ""}
    facts = codec.facts_from_json(json.dumps({"passes": [old, old | {"prediction": "None: it is so."}]}), {})
    assert [report.prediction for report in facts.passes] == [None, of_text("None: it is so.")]


# -- words that stand where they are made or declared ------------------------------------------------------------------------


def test_what_is_worded_in_place_has_a_code_of_its_own_and_is_given_its_facts() -> None:
    wrong = []
    for path, call, templates in translatable.worded_calls():
        code, place = call.args[0], f"{path}:{call.lineno}"
        if path.parts[1] == "messages":
            continue
        if not (isinstance(code, ast.Constant) and all(templates)):
            wrong.append(f"{place}: code and template are literals, so that another language can have them")
            continue
        known = {f"pass.{path.stem}."} if path.parts[1] == "passes" else set()
        if not any(str(code.value).startswith(begin) for begin in known):
            wrong.append(f"{place}: {code.value} does not begin with its pass")
        needed, given = set().union(*map(facts_in, templates)), {word.arg for word in call.keywords}
        if (None not in given and given != needed) or not given - {None} <= needed:
            wrong.append(f"{place}: {code.value} is told with {given}, its template says {needed}")
    assert wrong == []


def test_one_code_is_worded_in_one_way(english: dict[str, polib.POEntry]) -> None:
    seen: dict[str, tuple[str, ...]] = {}
    for _, call, templates in translatable.worded_calls():
        code = ast.unparse(call.args[0])
        assert seen.setdefault(code, templates) == templates, code
    assert not set(english) & (set(translatable.declared_texts()) | set(translatable.worded_templates()))


def test_what_is_declared_has_no_facts() -> None:
    """It is looked up and not told with anything."""
    assert [code for code, text in translatable.declared_texts().items() if facts_in(text)] == []


def test_a_reason_worded_in_place_comes_back_from_a_file(polish: None) -> None:
    one = worded("toy.files", "{n} file {name}", "{n} files {name}", n=3, name="a")
    back = Reason.from_json(json.loads(json.dumps(one.as_json())))
    assert (str(one), str(back), back.say("xx")) == ("3 files a", "3 files a", "3 pliki a")
    assert str(worded("toy.files", "{n} file {name}", "{n} files {name}", n=1, name="a")) == "1 file a"


def given_words(call: ast.Call) -> bool:
    """Whether words stand in a call itself: a literal with a space or a letter, or one with values put into it."""
    named = isinstance(call.func, ast.Name)
    given = (*call.args[named:], *(word.value for word in call.keywords))  # a value's first names what it is
    parts = [part for one in given for part in ast.walk(one)]
    coded = {id(part) for one in parts if isinstance(one, ast.Call) for part in ast.walk(one)}
    texts = [one for one in parts if id(one) not in coded and isinstance(one, ast.JoinedStr | ast.Constant)]
    return any(isinstance(one, ast.JoinedStr) or (isinstance(one.value, str) and " " in one.value) for one in texts)


TELLS = ("Notice", "Status", "report", "warn", "started", "ended", "PassReport", "Unavailable", "Prediction")
"""Calls below the faces that make something which people read."""


def told_in_words(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in TELLS and given_words(node):
                yield node.lineno


def test_nothing_below_the_faces_is_told_in_words() -> None:
    below = [(one.name, one.tree) for one in modules("core") if not one.name.startswith(("core/commands/", "core/cli.py"))]
    assert [f"{path}:{line}" for path, tree in below for line in told_in_words(tree)] == []


@pytest.mark.parametrize(
    "code",
    [
        'Notice("warning", "The disk is full.")',
        'Notice("failed", f"{error}", detail)',
        'Status("running", (f"repeat {n}",))',
        'progress.report("Loading weights", 0.5)',
        'context.ended("finished", f"Imported {name}.", 3)',
    ],
)
def test_telling_in_words_is_seen(code: str) -> None:
    assert list(told_in_words(ast.parse(code)))


# -- another language --------------------------------------------------------------------------------------------------------

TOY = {
    "execution.repeat-of": "{number}a ripeto el {of}",
    "execution.moment-of": "{number}a momento el {of}",
    "session.read-only": "{name} estas nur legebla",
    "pass.bfloat16.title": "bf16",
    "pass.bfloat16.summary": "Duono de la memoro",
    "pass.bfloat16.done": "{count} moduloj iĝis bfloat16",
    "planning.and-bytes": "{what}: {before_bytes:size}, poste {after_bytes:size}",
    "metric.ttft_ns.title": "Ĝis la unua",
    "workload.batch.label": "Kune",
    "term.moment.meaning": "Unu trakuro.",
    "option.LayerPatterns.skip.label": "Lasu",
    "phase.precision.title": "Precizeco",
}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A second language that is spoken, with a few of the words there are."""
    text = tmp_path / "eo.po"
    catalog = polib.POFile()
    catalog.metadata = {"Content-Type": "text/plain; charset=UTF-8"}
    catalog.extend(polib.POEntry(msgid=code, msgstr=words) for code, words in TOY.items())
    catalog.save(str(text))
    read = catalogue.resources.data
    monkeypatch.setattr(catalogue.resources, "data", lambda name: compiled(text) if name == "messages/eo.mo" else read(name))
    monkeypatch.setattr(catalogue, "languages", lambda: ("en", "eo"))
    catalogue.speak("eo")
    yield
    catalogue.speak("en")
    catalogue._catalogue.cache_clear()


def test_the_toy_language_says_nothing_that_is_not_there() -> None:
    known = translatable.english()
    assert {code for code, words in TOY.items() if code not in known or facts_in(words) != entry_facts(known[code])} == set()


def test_another_language_tells_status_refusals_and_what_is_declared(toy: None) -> None:
    parts = (Reason("execution.repeat-of", number=2, of=5), Reason("execution.moment-of", number=1, of=8))
    assert Status("running", parts).text == "2a ripeto el 5 · 1a momento el 8"
    refusal = Refusal(Reason("session.read-only", name="a.tickscope"))
    assert str(refusal) == "a.tickscope estas nur legebla"
    assert Notice("refused", refusal.reason).text == str(refusal)
    one = passes.get("bfloat16")
    assert (title_of(one), summary_of(one), one.phase.title) == ("bf16", "Duono de la memoro", "Precizeco")
    assert summary_of(passes.get("float16")) == passes.get("float16").summary
    assert workload_fields()["batch"].called == "Kune"
    assert GLOSSARY[0].explained == "Unu trakuro."
    assert declared(passes.get("int8_dynamic").options)["skip"].called == "Lasu"


def test_another_language_tells_a_report_also_of_a_run_from_a_file(toy: None) -> None:
    done = Reason(
        "planning.and-bytes",
        what=worded("pass.bfloat16.done", "{count} modules → bfloat16", count=211),
        before_bytes=2**20,
        after_bytes=2**19,
    )
    run = synthetic_run()
    kept = codec.facts_to_json(replace(run.facts, passes=(replace(run.facts.passes[0], summary=done),)))
    (stored,) = json.loads(kept)["passes"]
    assert stored["summary"] == "211 modules → bfloat16, 1.00 MiB → 512 KiB"  # a file's own words are English
    told = report.text(summarize(replace(run, facts=codec.facts_from_json(kept, {})), intervals=False))
    assert "211 moduloj iĝis bfloat16: 1.00 MiB, poste 512 KiB" in told
    assert "Ĝis la unua" in told


def test_a_file_holds_english_words_where_it_did_before_and_codes_beside_them() -> None:
    run = synthetic_run()
    note = Reason("execution.beyond-context", length=9, name="a", limit=8)
    assert run.facts.model is not None
    facts = replace(
        run.facts, error=Reason("execution.no-reaction"), model=replace(run.facts.model, notes=(note, of_text("b")))
    )
    written = json.loads(codec.facts_to_json(facts))
    assert written["error"] == "what was going on did not react to the cancel"
    assert written["model"]["notes"] == [str(note), "b"]
    assert written["passes"][0]["summary"] == str(facts.passes[0].summary)
    assert "said" not in written["passes"][0]  # of which no more is known than the words
    back = codec.facts_from_json(json.dumps(written), {})
    assert (back.error, back.model, back.passes) == (facts.error, facts.model, facts.passes)
    del written["said"], written["model"]["said"]  # as an earlier version wrote it
    assert codec.facts_from_json(json.dumps(written), {}).error == of_text(str(facts.error))


def test_a_line_break_in_a_name_of_others_does_not_break_the_sentence() -> None:
    lacking = Reason("execution.table-lacks-columns", name="labels.csv", columns=("ext,label\na good\r\u2028", "text"))
    assert "ext,label␊a good␍␤, text" in str(lacking)
    assert len(str(lacking).splitlines()) == 1
    assert str(of_text("first\nsecond")) == "first\nsecond"
    assert len(str(Reason("execution.as-clause", sentence=lacking)).splitlines()) == 1
