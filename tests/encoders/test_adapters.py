"""Low-rank adapters: what is trained, saved, read and merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import fail
from commands import xmc as command
from small_models import WORDS, write_bert, write_decoder
from worlds import colours

import xmc
from xmc.config import LoRAConfig
from xmc.encoders.dual import build_encoder
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.errors import ConfigError, StoreError
from xmc.training.estimate import estimate
from xmc.training.optimizers import Optimizers

TEXTS = ["a boat with two hulls", "the dog", "the cat sleeps in its house on the sea"]
KINDS = {
    "plain": LoRAConfig(rank=4),
    "scaled by the rank": LoRAConfig(rank=4, alpha=16, rank_stabilized=False),
    "decomposed": LoRAConfig(rank=2, weight_decomposed=True),
    "some layers": LoRAConfig(rank=4, target=("q_proj", "down_proj")),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("llama") / "model")


def adapted(directory: Path, lora: LoRAConfig, seed: int = 0, **options: Any) -> TransformerEncoder:
    """With adapters as after some training."""
    encoder = TransformerEncoder.from_pretrained(directory, lora=lora, **options)
    random = torch.Generator().manual_seed(seed)
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name or "magnitude" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)
    return encoder.eval()


@torch.no_grad()
def embed(encoder: TransformerEncoder) -> torch.Tensor:
    return encoder(encoder.featurize(TEXTS))


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_saved_alone_read_and_merged(kind: str, llama: Path, tmp_path: Path) -> None:
    encoder, plain = adapted(llama, KINDS[kind], projection=5), TransformerEncoder.from_pretrained(llama, projection=5)
    plain.load_state_dict({"projection.weight": encoder.state_dict()["projection.weight"]}, strict=False)
    before = embed(encoder)
    assert float((before - embed(plain.eval())).abs().max()) > 0.01
    (tmp_path / "encoder").mkdir()
    encoder.save(tmp_path / "encoder")
    weights = sum(file.stat().st_size for file in llama.glob("*.safetensors"))
    assert not list((tmp_path / "encoder").rglob("model*.safetensors"))
    assert (tmp_path / "encoder" / "backbone" / "adapter_model.safetensors").stat().st_size < 2 * weights
    again = TransformerEncoder.load(tmp_path / "encoder").eval()
    assert torch.equal(embed(again), before)
    assert again.lora == encoder.lora
    whole = encoder.merged()
    assert whole.lora is None
    torch.testing.assert_close(embed(whole), before, rtol=0, atol=1e-5)
    assert torch.equal(embed(encoder), before)
    (tmp_path / "whole").mkdir()
    whole.save(tmp_path / "whole")
    assert torch.equal(embed(TransformerEncoder.load(tmp_path / "whole").eval()), embed(whole))
    assert plain.merged() is plain


def test_peft_reads_what_is_saved(llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    encoder = adapted(llama, LoRAConfig(rank=3), pooling="last")
    encoder.save(tmp_path)
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(llama), str(tmp_path / "backbone")).eval()
    ids = torch.from_numpy(encoder.featurize(TEXTS[:1]).values.astype(np.int64))[None]
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids=ids).last_hidden_state[:, -1], embed(encoder)[:1], rtol=0, atol=1e-5)


def test_the_scale_is_as_named(llama: Path) -> None:
    for lora, expected in (
        (LoRAConfig(rank=4), 2.0),
        (KINDS["scaled by the rank"], 4.0),
        (LoRAConfig(rank=4, alpha=8.0), 4.0),
    ):
        encoder = TransformerEncoder.from_pretrained(llama, lora=lora)
        layer: Any = encoder.backbone.get_submodule("layers.0.mlp.up_proj")
        assert layer.scaling["default"] == pytest.approx(expected)


def test_adapters_and_projections_alone_are_trained(llama: Path) -> None:
    values = {
        "directory": str(llama), "lora": {"rank": 4}, "projection": 5, "gradient_checkpointing": True,
        "images": {"dimension": 6}, "dtype": "bfloat16",
    }  # fmt: skip
    config = xmc.TrainConfig.from_mapping({"encoder": {"kind": "transformer", **values}, "share_towers": False})
    model = build_encoder(config, 0, torch.Generator())
    model.prepare_for_training(config)
    for tower in (model.query_encoder, model.label_encoder):
        for name, parameter in tower.named_parameters():
            learned = "lora_" in name or "projection" in name
            assert parameter.requires_grad == learned, name
            assert parameter.dtype == (torch.float32 if learned else torch.bfloat16), name
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in model.named_parameters() if "lora_" in name}
    assert layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    model.train()
    embeddings = model.queries(model.query_encoder.featurize(TEXTS))
    embeddings.square().sum().backward()
    names = {name for name, p in model.query_encoder.named_parameters() if p.grad is not None}
    assert {name for name, p in model.query_encoder.named_parameters() if p.requires_grad} - names == {
        "image_projection.weight", "image_projection.bias"
    }  # fmt: skip
    assert len(Optimizers(model, config).dense_parameters) == len([p for p in model.parameters() if p.requires_grad])


def config(directory: Path, **changes: Any) -> xmc.TrainConfig:
    transformer = {"directory": str(directory), "lora": {"rank": 4, "dropout": 0.1}, "tokens_per_micro_batch": 128}
    return xmc.TrainConfig.from_mapping(
        {
            "encoder": {"kind": "transformer", **transformer, **changes.pop("encoder", {})},
            "optimizer.learning_rate.encoder": 0.01,
            "batch_size": 40,
            "epochs": 6,
            "objective.temperature": 0.1,
            "optimizer.learning_rate.label_vectors": 0.02,
            "device": "cpu",
            **changes,
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"gradient_cache": True}, {"precision": "bfloat16"}], ids=str)
def test_adapters_learn(changes: dict[str, Any], llama: Path, tmp_path: Path) -> None:
    data = colours(WORDS[3:15])
    xmc.train(data, config(llama, **changes), tmp_path / "run")
    assert xmc.evaluate(xmc.Retriever.load(tmp_path / "run"), data).values["P@1"] >= 60


@pytest.mark.slow
def test_a_run_with_adapters_is_exported_whole(llama: Path, tmp_path: Path) -> None:
    base = shutil.copytree(llama, tmp_path / "base")
    data = colours(WORDS[3:15])
    run = tmp_path / "run"
    xmc.train(data, config(base, precision="float32"), run)
    retriever = xmc.Retriever.load(run)
    assert xmc.evaluate(retriever, data).values["P@1"] >= 60
    found = retriever.predict(["the boat and the dog"], 3)
    done = command("export", run, tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(base)
    with pytest.raises(
        StoreError, match=r"need the backbone in .*base, which is not there\. Put it back, or load a run"
    ):
        xmc.Retriever.load(run)
    whole = xmc.Retriever.load(tmp_path / "whole")
    again = whole.predict(["the boat and the dog"], 3)
    assert again[0].tolist() == found[0].tolist()
    np.testing.assert_allclose(again[1], found[1], atol=1e-5)
    fail(command("export", tmp_path / "whole", tmp_path / "whole"), "already holds a run")


def test_other_weights_than_those_of_training_are_refused(llama: Path, tmp_path: Path) -> None:
    base = shutil.copytree(llama, tmp_path / "base")
    encoder = adapted(base, LoRAConfig(rank=4))
    (tmp_path / "run").mkdir()
    encoder.save(tmp_path / "run")
    shutil.rmtree(base)
    write_decoder(base, initializer_range=0.5, tie_word_embeddings=True)
    with pytest.raises(StoreError, match="trained on other weights than those in"):
        TransformerEncoder.load(tmp_path / "run")


def test_damaged_adapters_are_refused(llama: Path, tmp_path: Path) -> None:
    adapted(llama, LoRAConfig(rank=4)).save(tmp_path)
    stored = json.loads((tmp_path / "encoder.json").read_text())
    stored["lora"]["rank"] = 5
    (tmp_path / "encoder.json").write_text(json.dumps(stored))
    with pytest.raises(StoreError, match="does not hold a transformer encoder"):
        TransformerEncoder.load(tmp_path)
    (tmp_path / "backbone" / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(StoreError, match=r"adapter_model\.safetensors cannot be read as a safetensors file"):
        TransformerEncoder.load(tmp_path)


def test_adapters_cost_less(llama: Path) -> None:
    data = colours(WORDS[3:15])
    costs = [estimate(data, config(llama, encoder={"lora": {"rank": rank}})) for rank in (1, 0)]
    assert costs[0].memory["encoder moments"] < costs[1].memory["encoder moments"]
    assert costs[0].work["encoding, a step"][0] < costs[1].work["encoding, a step"][0]


def test_mistakes_are_sentences(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"lora\.target 'query' is no linear layer of the backbone; its are down_proj"
    ):
        TransformerEncoder.from_pretrained(llama, lora=LoRAConfig(rank=4, target=("query",)))
    with pytest.raises(ConfigError, match=r"lora\.target must be a list of texts, but is 'q_proj'"):
        config(llama, encoder={"lora": {"rank": 4, "target": "q_proj"}})
    with pytest.raises(ConfigError, match=r"lora freezes the whole backbone; set encoder\.frozen_layers to 0"):
        config(llama, encoder={"frozen_layers": 1})
    with pytest.raises(ConfigError, match="splits a backbone that is trained whole"):
        config(llama, encoder={"shard": True}, gradient_cache=True)
    bert = write_bert(tmp_path / "bert")
    layers = {name for name, _ in adapted(bert, LoRAConfig(rank=2)).named_parameters() if "lora_A" in name}
    assert layers
    assert not any("pooler" in name for name in layers)
