"""Targets: what a person or a client gives: configurations, settings, conditions, queries, bodies of requests."""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from worlds import tiny_config

import xmc
from fuzzing.of_stored import write_run
from fuzzing.targets import Case, Target, register
from fuzzing.values import damaged_value
from xmc.config import TrainConfig
from xmc.config.shipped import config_file
from xmc.data.files import TextForm, WantedColumn, open_file
from xmc.errors import InputError, boundary
from xmc.search.label_edits import LabelEdits
from xmc.search.new_labels import Scoring
from xmc.search.predicates import parse_predicate
from xmc.search.queries import Query
from xmc.serve.answering import answers_as_json, embeddings_as_json, predicted
from xmc.serve.bodies import EmbedBody, PredictBody, read_body
from xmc.serve.change_bodies import LabelsBody, RememberBody
from xmc.serve.failures import refusal_of
from xmc.serve.settings import Limits

SHIPPED = ("static", "minilm-wordnet-8k", "prime-distilbert", "vixml-minilm")
CONDITIONS = [
    "market == 'de' and price < 10",
    "not (uid in ['RED', 'BLUE'] or text != 'x')",
    "5 < price <= 10.5 and flag == True",
    "price is not None and market not in ['at', \"ch\"]",
]
SETTINGS = [
    "encoder.dimension=512",
    "negatives=[{kind: shortlist, size: 8}]",
    "optimizer.learning_rate.encoder=1e-3",
    "encoder={kind: static, dimension: 64}",
    "warmup=0.1",
    "objective.loss.kind=softmax",
    "checkpoint.minutes=5",
]
BODIES: dict[str, Any] = {
    "predict": {"texts": ["a boat", "red"], "k": 3, "where": "uid != 'RED'", "exclude": ["BLUE"], "diversity": 0.3},
    "vectors": {"vectors": [[0.1] * 32], "k": 2, "include": ["RED", "BLUE"], "explain": True},
    "passages": {"texts": ["red and blue"], "k": 2, "passages": {"tokens": 2, "stride": 1, "combine": "max"}},
    "embed": {"texts": ["a boat"]},
    "labels": {"add": [{"uid": "m", "text": "magenta", "examples": ["a"]}], "update": [{"uid": "RED", "text": "rot"}],
               "remove": ["BLUE"], "score": "rate", "expected_rate": 0.1},
    "remember": {"texts": ["a red one"], "labels": [["RED"]]},
}  # fmt: skip
KINDS: dict[str, Any] = {"embed": EmbedBody, "labels": LabelsBody, "remember": RememberBody}
QUERIES: list[Any] = [
    {"texts": {"a boat": 1.0, "red": -0.5}, "labels": ["RED"]},
    {"texts": ["a", "b"], "embeddings": [[[0.1] * 32, 1.0]]},
    {"passages": ["a red one", "a blue one"], "combine": "logmeanexp", "temperature": 0.2},
]
EDITS = {
    "add": [{"uid": "m", "text": "magenta"}],
    "update": [{"uid": "RED", "text": "rot", "examples": ["a"]}],
    "remove": ["BLUE"],
}


def _texts(folder: Path, texts: list[str], ending: str = ".txt") -> None:
    for number, text in enumerate(texts):
        (folder / f"{number}{ending}").write_text(text, encoding="utf-8")


def _text(case: Case) -> str:
    """A text as a command line has it: bytes that are no UTF-8 are lone surrogates."""
    return case.only.read_bytes().decode("utf-8", "surrogateescape")


def _json(case: Case) -> Any:
    """What a program has read of JSON, and hands on. InputError for what is none."""
    with boundary(InputError, "the values are no JSON"):
        return json.loads(case.only.read_bytes())


def write_configs(folder: Path) -> None:
    """The shipped ones, and one with every key."""
    for name in SHIPPED:
        (folder / f"{name}.yaml").write_bytes(config_file(name).read_bytes())
    (folder / "every.yaml").write_text(tiny_config().to_yaml())


def read_config(case: Case) -> None:
    """What is read is written, and read again as the same."""
    config = TrainConfig.load(case.only)
    again = TrainConfig.from_mapping(yaml.safe_load(config.to_yaml()))
    assert again.to_yaml() == config.to_yaml(), "another configuration is read than was written"


def read_setting(case: Case) -> None:
    """One setting over the defaults."""
    TrainConfig.from_mapping({}, [_text(case)]).to_yaml()


def read_settings_as_json(case: Case) -> None:
    """A mapping of values, as Python and stored checkpoints give it."""
    values = _json(case)
    for _ in range(case.chance.choice([1, 2])):
        values = damaged_value(values, case.chance)
    TrainConfig.from_mapping(values if isinstance(values, dict) else {"encoder": values}).to_yaml()


@cache
def _retriever(run: Path) -> xmc.Retriever:
    logging.disable(logging.CRITICAL)
    return xmc.Retriever.load(run)


def _prepare(folder: Path) -> None:
    (folder / "run").mkdir()
    write_run(folder / "run")
    retriever = xmc.Retriever.load(folder / "run")
    uids = retriever.labels.uids.to_pylist()
    columns = {"uid": uids, "market": ["de", "at", None] * 4, "price": [*range(11), None], "flag": [True, False] * 6}
    retriever.set_columns(pa.table(columns))
    retriever.save(folder / "run", overwrite=True)


def read_condition(case: Case) -> None:
    """Parsed, and labels searched by it."""
    text = _text(case)
    parse_predicate(text)
    _retriever(case.place / "run").predict(["red"], k=2, where=text)


def write_bodies(folder: Path) -> None:
    """A body of each kind of request."""
    for name, body in BODIES.items():
        (folder / f"{name}.json").write_text(json.dumps(body))


def read_request(case: Case) -> None:
    """As the server reads and answers it: an answer in JSON, or a refusal that says what is wrong with the request."""
    retriever, kind = _retriever(case.place / "run"), KINDS.get(case.only.stem, PredictBody)
    body, limits = read_body(kind, "application/json", case.only.read_bytes()), Limits()
    try:
        if isinstance(body, LabelsBody):
            retriever.prepare_edits(body.edits(limits))
            return
        body.require(limits)
        if isinstance(body, RememberBody):
            return
        if isinstance(body, EmbedBody):
            content = embeddings_as_json(retriever, [body])
        else:
            content = answers_as_json(predicted(retriever, [body]), [len(body)], 1)
        json.loads(content[0], parse_constant=_refuse_constant)
    except Exception as error:
        refusal = refusal_of(error)
        if refusal.status == 500:
            raise
        raise refusal from error


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"an answer holds {name}")


def read_query(case: Case) -> None:
    """A Query of any values, made and searched."""
    values = damaged_value(_json(case), case.chance)
    if not isinstance(values, dict):
        return
    known = {
        name: value
        for name, value in values.items()
        if name in QUERIES[0].keys() | QUERIES[1].keys() | QUERIES[2].keys()
    }
    query = Query(**known)
    if case.chance.random() < 0.3:
        query = query.minus("green")
    found, scores = _retriever(case.place / "run").predict([query], k=3)
    assert found.shape == scores.shape
    assert not np.isnan(scores).any(), "a score is no number"


def read_edits(case: Case) -> None:
    """Changes of labels, as the journal and the server give them."""
    values = damaged_value(_json(case), case.chance)
    if not isinstance(values, dict):
        return
    edits = LabelEdits.read(values.get("add"), values.get("update"), values.get("remove"), Scoring("rate", None))
    retriever = _retriever(case.place / "run")
    prepared = retriever.prepare_edits(edits)
    after = prepared.change(retriever.labels)
    assert len(after) == 12 + len(edits.add) - len(edits.remove), "labels are missing, or too many"


def read_form(case: Case) -> None:
    """A file of texts in some encoding with some delimiter: every line is a row, read or refused."""
    chance, text = case.chance, _text(case)
    path = case.place / f"in{chance.choice(['.csv', '.tsv'])}"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    form = TextForm(
        chance.choice(
            [None, "latin-1", "utf-16", "cp1252", "utf-8-sig", "hex", "no such", "utf-7", "idna", "\x00", "big5"]
        ),
        chance.choice([None, ";", "|", "\t", "\x00", "é", '"', "\n", ",,", "\ud800"]),
        chance.choice([None, ";", "", "\x00", "|"]),
    )
    file = open_file(path, [WantedColumn("text", "text"), WantedColumn("labels", "labels", required=False)], form)
    rows = sum(len(batch) for batch in file.batches())
    assert file.count(True) == rows, f"{file.count(True)} rows are counted, and {rows} read"


register(Target("config yaml", write_configs, read_config, alternatives=True))
register(Target("config setting", lambda folder: _texts(folder, SETTINGS), read_setting, alternatives=True))
register(
    Target(
        "config values",
        lambda folder: _texts(folder, [json.dumps(tiny_config().to_mapping())], ".json"),
        read_settings_as_json,
        alternatives=True,
    )
)
register(Target("where", lambda folder: _texts(folder, CONDITIONS), read_condition, _prepare, alternatives=True))
register(Target("request", write_bodies, read_request, _prepare, alternatives=True))
register(
    Target("Query", lambda folder: _texts(folder, list(map(json.dumps, QUERIES)), ".json"), read_query, _prepare, True)
)
register(Target("label edits", lambda folder: _texts(folder, [json.dumps(EDITS)], ".json"), read_edits, _prepare, True))
register(
    Target(
        "text form",
        lambda folder: _texts(folder, ["text,labels\na red thing,red\nb,c;d\n" * 3]),
        read_form,
        alternatives=True,
    )
)
