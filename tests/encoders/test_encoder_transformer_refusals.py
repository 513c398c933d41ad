"""What a transformer encoder refuses: options, backbones and files that do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import MEAN, write_json, write_sentence_transformer, write_tokenizer

from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.errors import ConfigError, StoreError


def refused(directory: Path, match: str, **options: Any) -> None:
    with pytest.raises(ConfigError, match=match):
        TransformerEncoder.from_pretrained(directory, **options)


def test_options_that_do_not_fit_are_refused(bert: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere")
    refused(Path("sentence-transformers/all-MiniLM-L6-v2"), "not a directory")
    refused(tmp_path, "cannot be loaded")
    refused(bert, "'max'", pooling="max")
    refused(bert, "float64", dtype="float64")
    refused(bert, "from 3 to 24", max_length=25)
    refused(bert, "at least 3", max_length=2)


def test_backbones_that_cannot_be_used_are_refused(bert: Path, tmp_path: Path) -> None:
    def copied(name: str) -> Path:
        return Path(shutil.copytree(bert, tmp_path / name))

    pickled = copied("pickled")
    tensors = load_file(pickled / "model.safetensors")
    torch.save(tensors, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    refused(pickled, "safetensors")

    short = copied("short")
    content = (short / "model.safetensors").read_bytes()
    (short / "model.safetensors").write_bytes(content[: len(content) // 2])
    refused(short, "cannot be loaded")

    lacking = copied("lacking")
    del tensors["encoder.layer.1.output.dense.weight"], tensors["pooler.dense.weight"]
    save_file(tensors, lacking / "model.safetensors", {"format": "pt"})
    refused(lacking, r"lack encoder\.layer\.1\.output\.dense\.weight and 0 more")

    code = copied("code")
    config = json.loads((code / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.OwnModel"}}
    write_json(code / "config.json", config)
    (code / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    refused(code, "cannot be loaded")
    assert not (tmp_path / "ran").exists()


def test_encoder_decoder_is_refused(tmp_path: Path) -> None:
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    T5Model(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    refused(tmp_path, "decoder")


def test_sentence_transformers_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def written(name: str) -> Path:
        return write_sentence_transformer(tmp_path / name, MEAN, dense=(7, "torch.nn.modules.activation.Tanh"))

    pooling = written("pooling")
    write_json(pooling / "1_Pooling" / "config.json", MEAN | {"pooling_mode_max_tokens": True})
    refused(pooling, "pooling_mode_mean_tokens .* pooling_mode_max_tokens")
    write_json(pooling / "1_Pooling" / "config.json", {"pooling_mode": "weightedmean"})
    refused(pooling, "weightedmean")
    write_json(pooling / "1_Pooling" / "config.json", [])
    refused(pooling, "not a JSON object")

    module = written("module")
    modules = json.loads((module / "modules.json").read_text())
    write_json(module / "modules.json", [*modules, {"path": "3_CNN", "type": "sentence_transformers.models.CNN"}])
    refused(module, "models.CNN")
    write_json(module / "modules.json", modules[1:])
    refused(module, "no Transformer")
    write_json(module / "modules.json", [{"path": ""}])
    refused(module, "type and a path")
    normalise = {"path": "", "type": "sentence_transformers.models.Normalize"}
    write_json(module / "modules.json", [*modules[:2], normalise, modules[2]])
    refused(module, "Dense module after Normalize")
    (module / "modules.json").write_text("[")
    refused(module, "modules.json cannot be read")

    dense = written("dense")
    weights = dense / "2_Dense" / "model.safetensors"
    tensors = load_file(weights)
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(dense, "cannot be read as a Dense module")
    save_file({"linear.weight": tensors["linear.weight"][:, 1:].contiguous()}, weights)
    refused(dense, "takes 15 numbers, but is given 16")
    weights.rename(dense / "2_Dense" / "pytorch_model.bin")
    refused(dense, "pickled weights are not read")


@pytest.mark.parametrize(
    "file", ["encoder.json", "encoder.safetensors", "backbone/model.safetensors", "backbone/config.json"]
)
@pytest.mark.parametrize("damage", ["cut", "gone", "empty object"])
def test_damaged_run_is_refused(file: str, damage: str, bert: Path, tmp_path: Path) -> None:
    TransformerEncoder.from_pretrained(bert, projection=5).save(tmp_path)
    path = tmp_path / file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if damage == "cut" else b"{}")
    with pytest.raises(StoreError, match="does not hold a transformer encoder"):
        TransformerEncoder.load(tmp_path)
