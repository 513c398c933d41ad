"""Data sets of the package `datasets`, read by it and by xmc."""

from __future__ import annotations

from typing import Any

import pytest
from worlds import colours, tiny_config

import xmc
from xmc.errors import DataError, InputError, XMCError

datasets: Any = pytest.importorskip("datasets", reason="the package datasets is not installed")
CLASSES = datasets.ClassLabel(names=["cat", "dog", "fish"])


def rows(text: list[str | None], labels: list[Any], feature: Any = None) -> Any:
    features = {"text": datasets.Value("string"), "labels": feature}
    return datasets.Dataset.from_dict(
        {"text": text, "labels": labels}, features=None if feature is None else datasets.Features(features)
    )


def read(data: xmc.Dataset, split: str = "train") -> list[list[str]]:
    """The label texts of each query."""
    names, positives = data.labels.texts.to_pylist(), data.split(split).positives
    return [[names[label] for label in positives[row].indices] for row in range(positives.shape[0])]


def test_lists_of_class_labels_in_several_splits() -> None:
    train = rows(["a", "b", None, "d"], [[0, 2], [], [1, 1], None], datasets.Sequence(CLASSES))
    test = rows(["x"], [[2]], datasets.Sequence(CLASSES))
    data = xmc.Dataset.from_huggingface(datasets.DatasetDict({"train": train, "test": test}), name="pets")
    assert (data.name, data.splits) == ("pets", ("train", "test"))
    assert data.labels.uids.to_pylist() == data.labels.texts.to_pylist() == ["cat", "dog", "fish"]
    assert data.split("train").texts.to_pylist() == ["a", "b", "", "d"]
    assert data.split("train").uids.to_pylist() == ["0", "1", "2", "3"]
    assert read(data) == [["cat", "fish"], [], ["dog"], []]
    assert read(data, "test") == [["fish"]]


def test_rows_that_were_selected_and_shuffled() -> None:
    all_rows = rows([f"text {i}" for i in range(30)], [[i % 3] for i in range(30)], datasets.Sequence(CLASSES))
    some = all_rows.shuffle(seed=1).select(range(3, 20))
    data = xmc.Dataset.from_huggingface(some)
    assert data.split("train").texts.to_pylist() == some["text"][:]
    assert read(data) == [[CLASSES.names[label] for label in row] for row in some["labels"]]


def test_one_class_a_row_with_texts_of_the_classes() -> None:
    train = rows(["a", "b", "c"], [0, -1, None], CLASSES)  # -1 is how `datasets` writes that there is none
    data = xmc.Dataset.from_huggingface(train, label_texts={"cat": "a small animal"})
    assert read(data) == [["a small animal"], [], []]
    assert data.labels.uids.to_pylist() == ["cat", "dog", "fish"]
    assert xmc.Dataset.from_huggingface(train, label_texts=["A", "B", "C"]).labels.texts.to_pylist() == ["A", "B", "C"]


def test_strings() -> None:
    train = rows(["a", "b", "c"], [["z", "a"], ["a", "a"], []])
    data = xmc.Dataset.from_huggingface(train)
    assert data.labels.texts.to_pylist() == ["a", "z"]
    assert read(data) == [["a", "z"], ["a"], []]
    named = xmc.Dataset.from_huggingface(train, label_texts={"z": "last", "a": "first", "new": "never seen"})
    assert named.labels.uids.to_pylist() == ["z", "a", "new"]
    assert read(named) == [["last", "first"], ["first"], []]
    single = datasets.Dataset.from_dict({"id": ["p", "q"], "title": ["a", "b"], "topic": ["sport", "art"]})
    data = xmc.Dataset.from_huggingface(single, "title", "topic", uid="id")
    assert data.split("train").uids.to_pylist() == ["p", "q"]
    assert read(data) == [["sport"], ["art"]]


def test_ints() -> None:
    train = rows(["a", "b"], [[2, 0], [1]])
    data = xmc.Dataset.from_huggingface(train, label_texts=["zero", "one", "two", "three"])
    assert data.labels.uids.to_pylist() == ["0", "1", "2", "3"]
    assert read(data) == [["zero", "two"], ["one"]]
    data = xmc.Dataset.from_huggingface(rows(["a", "b"], [[70, 5], [-1]]), label_texts={5: "V", 70: "LXX", -1: "minus"})
    assert read(data) == [["V", "LXX"], ["minus"]]
    assert xmc.Dataset.from_huggingface(rows(["a", "b"], [[70, 5], [-1]])).labels.uids.to_pylist() == ["-1", "5", "70"]


def test_it_trains_like_the_same_data_from_lists(tmp_path: Any) -> None:
    known = colours()
    names = known.labels.uids.to_pylist()
    splits = {}
    for name in known.splits:
        split = known.split(name)
        labels = [[names[label] for label in split.positives[row].indices] for row in range(len(split))]
        splits[name] = datasets.Dataset.from_dict({"text": split.texts.to_pylist(), "labels": labels})
    texts = dict(zip(names, known.labels.texts.to_pylist(), strict=True))
    data = xmc.Dataset.from_huggingface(datasets.DatasetDict(splits), label_texts=texts)
    assert data.fingerprint == known.fingerprint
    xmc.train(data, tiny_config(), tmp_path / "run")
    assert xmc.evaluate(xmc.Retriever.load(tmp_path / "run"), data).values["P@1"] > 90
    data.save(tmp_path / "data")
    assert xmc.Dataset.load(tmp_path / "data").fingerprint == known.fingerprint


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"text": "title"}, DataError, "The split train has no column 'title', only text, labels"),
        ({"text": "labels"}, DataError, "train, column labels must hold strings"),
        ({"label_texts": ["one"]}, DataError, "The split train has the label 2, which label_texts does not have"),
        ({"label_texts": {"a": "b"}}, InputError, "keys of label_texts must be labels as in the column 'labels'"),
    ],
)
def test_columns_and_labels_that_do_not_fit(arguments: dict[str, Any], kind: type[XMCError], message: str) -> None:
    with pytest.raises(kind, match=message):
        xmc.Dataset.from_huggingface(rows(["a", "b"], [[0], [2]]), **arguments)


def test_data_sets_that_cannot_be_read() -> None:
    train = rows(["a"], [[0]], datasets.Sequence(CLASSES))
    with pytest.raises(InputError, match=r"The split train is streamed.*without streaming=True"):
        xmc.Dataset.from_huggingface(train.to_iterable_dataset())
    with pytest.raises(InputError, match="of type list"):
        xmc.Dataset.from_huggingface([{"text": "a", "labels": [0]}])
    other = rows(["a"], [[0]], datasets.Sequence(datasets.ClassLabel(names=["x"])))
    with pytest.raises(DataError, match="The splits train and test have other classes"):
        xmc.Dataset.from_huggingface({"train": train, "test": other})
    with pytest.raises(DataError, match="strings in one split, and ints in another"):
        xmc.Dataset.from_huggingface({"train": rows(["a"], [["x"]]), "test": rows(["a"], [[1]])})
    with pytest.raises(DataError, match="must hold strings, ints or lists of these"):
        xmc.Dataset.from_huggingface(rows(["a"], [0.5]))
    with pytest.raises(InputError, match="'bird', which is not the name of a class"):
        xmc.Dataset.from_huggingface(train, label_texts={"bird": "b"})
    with pytest.raises(InputError, match="1 texts for 3 classes"):
        xmc.Dataset.from_huggingface(train, label_texts=["b"])
    with pytest.raises(InputError, match="give label_texts as a mapping"):
        xmc.Dataset.from_huggingface(rows(["a"], [["x"]]), label_texts=["b"])


def test_labels_that_were_judged_not_relevant() -> None:
    features = {
        "text": datasets.Value("string"),
        "labels": datasets.Sequence(CLASSES),
        "bad": datasets.Sequence(CLASSES),
    }
    given = {"text": ["a", "b"], "labels": [[0], [1, 2]], "bad": [[2, 1], None]}
    source = datasets.Dataset.from_dict(given, features=datasets.Features(features))
    data = xmc.Dataset.from_huggingface(source, rejected="bad")
    assert data.split("train").rejected.toarray().tolist() == [[False, True, True], [False, False, False]]
    assert read(data) == [["cat"], ["dog", "fish"]]
    words = datasets.Dataset.from_dict({"text": ["a"], "labels": ["x"], "bad": [["y"]]})
    data = xmc.Dataset.from_huggingface(words, rejected="bad")
    assert data.labels.uids.to_pylist() == ["x", "y"]
    assert data.split("train").rejected.toarray().tolist() == [[False, True]]
    with pytest.raises(DataError, match="other classes in the columns 'labels' and 'bad'"):
        mixed = datasets.Features({**features, "bad": datasets.Sequence(datasets.Value("int64"))})
        xmc.Dataset.from_huggingface(datasets.Dataset.from_dict(given, features=mixed), rejected="bad")
