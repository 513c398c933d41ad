"""Files of an encoder whose checksums fit and whose content does not: tensors and settings that nobody trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from xmc.config import LoRAConfig, StaticConfig
from xmc.encoders.dual import DualEncoder
from xmc.encoders.prototypes import LabelPrototypes
from xmc.encoders.static.encoder import StaticEncoder
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.errors import ConfigError, StoreError

SMALL = StaticConfig(dimension=8, table_rows=64, weight_slots=32)


def edit_json(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    change(values)
    file.write_text(json.dumps(values), encoding="utf-8")


def edit_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(file)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


TENSORS: dict[str, Callable[[dict[str, torch.Tensor], str], Any]] = {
    "int32": lambda tensors, name: tensors.update({name: tensors[name].to(torch.int32)}),
    "float16": lambda tensors, name: tensors.update({name: tensors[name].half()}),
    "0-d": lambda tensors, name: tensors.update({name: torch.tensor(1.0)}),
    "shorter": lambda tensors, name: tensors.update({name: torch.zeros(3)}),
    "NaN": lambda tensors, name: tensors.update({name: torch.full_like(tensors[name], torch.nan)}),
    "missing": lambda tensors, name: tensors.pop(name),
    "further": lambda tensors, name: tensors.update({name + "2": torch.zeros(3)}),
}


@pytest.mark.parametrize("kind", sorted(set(TENSORS) - {"float16"}))  # which a table may have
@pytest.mark.parametrize("name", ["table.vectors", "table.log_weights"])
def test_tensors_of_a_static_encoder(tmp_path: Path, name: str, kind: str) -> None:
    StaticEncoder(SMALL).save(tmp_path)
    edit_tensors(tmp_path / "encoder.safetensors", lambda tensors: TENSORS[kind](tensors, name))
    with pytest.raises(StoreError, match=rf"encoder\.safetensors .*'{name}"):
        StaticEncoder.load(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"table_rows": 10**20}, {"table_rows": 2**50}, {"dimension": 2**40}, {"weight_slots": -1}, {"dimension": "8"},
        {"dimension": None}, {"kind_scales": [1e400]}, {"kind_scales": 3}, {"further": 1},
    ],
)  # fmt: skip
def test_settings_of_a_static_encoder(tmp_path: Path, settings: dict[str, Any]) -> None:
    StaticEncoder(SMALL).save(tmp_path)
    edit_json(tmp_path / "encoder.json", lambda stored: stored["static"].update(settings))
    with pytest.raises(StoreError, match=r"encoder\.(json|safetensors)"):
        StaticEncoder.load(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "[]", "[" * 100_000, '{"kind": []}', '{"kind": "other"}', "\ud800", '{"kind": "static"}']
)
def test_descriptions_of_encoders(tmp_path: Path, content: str) -> None:
    DualEncoder(*[StaticEncoder(SMALL)] * 2).save(tmp_path)
    (tmp_path / "encoder" / "encoder.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(
        StoreError, match=r"encoder.* (does not name an encoder|cannot be loaded|does not hold a static encoder)"
    ):
        DualEncoder.load(tmp_path)


@pytest.mark.parametrize("kind", sorted(set(TENSORS) - {"missing"}))
@pytest.mark.parametrize("name", ["label_vectors", "log_temperature"])
def test_tensors_of_a_model(tmp_path: Path, name: str, kind: str) -> None:
    DualEncoder(*[StaticEncoder(SMALL)] * 2, labels=5).save(tmp_path)
    assert DualEncoder.load(tmp_path).label_vectors is not None
    if (name, kind) == ("log_temperature", "0-d"):
        return  # it is that
    edit_tensors(tmp_path / "model.safetensors", lambda tensors: TENSORS[kind](tensors, name))
    with pytest.raises(StoreError, match=rf"model\.safetensors .*'{name}"):
        DualEncoder.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"), [("served", 0), ("served", 9), ("served", -(2**62)), ("served", 2.0), ("normalize", 1)]
)
def test_numbers_of_a_model(tmp_path: Path, name: str, value: float) -> None:
    DualEncoder(*[StaticEncoder(SMALL)] * 2).save(tmp_path)
    edit_tensors(tmp_path / "model.safetensors", lambda tensors: tensors.update({name: torch.tensor(value)}))
    with pytest.raises(StoreError, match=r"model\.safetensors"):
        DualEncoder.load(tmp_path)


def test_prototypes(tmp_path: Path) -> None:
    model = DualEncoder(*[StaticEncoder(SMALL)] * 2)
    model.prototypes = LabelPrototypes(8, 4, 2, 16)
    model.save(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    assert DualEncoder.load(tmp_path).prototypes is not None
    changes: list[Callable[[dict[str, torch.Tensor]], Any]] = [
        lambda tensors: tensors.update({"prototypes.heads": torch.tensor(0)}),
        lambda tensors: tensors.update({"prototypes.heads": torch.tensor(2**40)}),
        lambda tensors: tensors.update({"prototypes.means": torch.zeros(4, 7)}),
        lambda tensors: tensors.update({"prototypes.free_vectors": torch.tensor(1.0)}),
        lambda tensors: tensors.pop("prototypes.combiner.linear1.bias"),
        lambda tensors: tensors.update({"prototypes.more": torch.zeros(1)}),
    ]
    for change in changes:
        file.write_bytes(whole)
        edit_tensors(file, change)
        with pytest.raises(StoreError, match=r"model\.safetensors .*(prototypes|heads)"):
            DualEncoder.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_length": 10**9}, "max_length is 1000000000"),
        ({"max_length": 5_000}, "positions"),
        ({"max_length": -1}, "max_length is -1"),
        ({"max_length": "all"}, "max_length"),
        ({"projection": 10**9}, "projection is 1000000000"),
        ({"projection": 6}, r"'projection\.weight' as F32 \[5, 16\]"),
        ({"projection": None}, "does not belong there"),
        ({"dtype": "int32"}, "dtype"),
        ({"dtype": "load"}, "dtype"),
        ({"pooling": "__class__"}, "pooling"),
        ({"image_dimension": 10**12}, "image_dimension"),
        ({"tokens_per_micro_batch": -1}, "tokens_per_micro_batch"),
        ({"further": 1}, "further"),
    ],
)
def test_settings_of_a_transformer(bert: Path, tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    TransformerEncoder.from_pretrained(bert, projection=5).save(tmp_path)
    edit_json(tmp_path / "encoder.json", lambda stored: stored["transformer"].update(settings))
    with pytest.raises(StoreError, match=reason):
        TransformerEncoder.load(tmp_path)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"hidden_size": 10**9, "num_attention_heads": 1}, "weights"),
        ({"vocab_size": 10**9}, "of a model of"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers"),
        ({"intermediate_size": 10**15}, "intermediate_size"),
        ({"max_position_embeddings": 10**9}, "of a model of"),
        ({"attn_implementation": "someone/kernel"}, "would have to download"),
        ({"_attn_implementation": "someone/kernel"}, "would have to download"),
        ({"text_config": {"attn_implementation": "someone/kernel"}}, "would have to download"),
        ({"model_type": "nothing"}, "cannot|not|nothing"),
        ({"hidden_size": "large"}, "hidden_size|large|str"),
    ],
)
def test_configurations_of_a_backbone(bert: Path, tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    TransformerEncoder.from_pretrained(bert).save(tmp_path)
    edit_json(tmp_path / "backbone" / "config.json", lambda stored: stored.update(config))
    with pytest.raises(StoreError, match=f"does not hold a transformer encoder.*({reason})"):
        TransformerEncoder.load(tmp_path)
    with pytest.raises(ConfigError, match=reason):
        TransformerEncoder.from_pretrained(tmp_path / "backbone")


def test_weights_of_a_backbone_that_are_none(bert: Path, tmp_path: Path) -> None:
    TransformerEncoder.from_pretrained(bert).save(tmp_path)
    file = tmp_path / "backbone" / "model.safetensors"
    edit_tensors(
        file, lambda tensors: tensors.update({name: tensor.to(torch.int32) for name, tensor in tensors.items()})
    )
    with pytest.raises(StoreError, match="as I32, which are no weights"):
        TransformerEncoder.load(tmp_path)
    edit_tensors(file, lambda tensors: tensors.update({name: torch.tensor(1.0) for name in tensors}))
    with pytest.raises(StoreError, match="does not hold a transformer encoder"):
        TransformerEncoder.load(tmp_path)


def test_adapters_beside_weights_are_not_added_to_them(bert: Path, tmp_path: Path) -> None:
    TransformerEncoder.from_pretrained(bert).save(tmp_path)
    (tmp_path / "backbone" / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "x"}')
    with pytest.raises(StoreError, match=r"adapter_config\.json, which does not belong there"):
        TransformerEncoder.load(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{}", "[" * 100_000, '{"version": "1.0", "model": {"type": "BPE", "vocab": 7}}', "\0"]
)
def test_tokenizers_that_are_damaged(bert: Path, tmp_path: Path, content: str) -> None:
    TransformerEncoder.from_pretrained(bert).save(tmp_path)
    (tmp_path / "backbone" / "tokenizer.json").write_text(content)
    with pytest.raises(StoreError, match="does not hold a transformer encoder"):
        TransformerEncoder.load(tmp_path)


def test_tokenizers_of_absurd_size(bert: Path, tmp_path: Path) -> None:
    TransformerEncoder.from_pretrained(bert).save(tmp_path)
    with (tmp_path / "backbone" / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)  # of holes
    with pytest.raises(StoreError, match=r"tokenizer\.json has 1,099,511,627,776 bytes"):
        TransformerEncoder.load(tmp_path)


@pytest.mark.parametrize("rank", [10**9, 3])
def test_ranks_that_the_adapters_do_not_have(bert: Path, tmp_path: Path, rank: int) -> None:
    TransformerEncoder.from_pretrained(bert, lora=LoRAConfig(rank=2)).save(tmp_path)
    edit_json(tmp_path / "encoder.json", lambda stored: stored["lora"].update({"rank": rank}))
    with pytest.raises(StoreError, match=f"said to be of rank {rank}"):
        TransformerEncoder.load(tmp_path)
