"""What every encoder promises (xmc.encoders.base.Encoder), checked for each of them.

A new encoder gets a factory in FACTORIES.
"""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_models import write_bert, write_decoder
from torch import nn
from warm_process import warm_commands

from xmc.config import ENCODER_SECTIONS, ImagesConfig, LearningRates, StaticConfig, TrainConfig
from xmc.data.token_cache import TokenCache, cached_tokens
from xmc.data.tokens import RaggedTokens
from xmc.encoders.base import Encoder
from xmc.encoders.dual import DualEncoder
from xmc.encoders.registry import ENCODERS
from xmc.encoders.static.encoder import StaticEncoder
from xmc.encoders.transformer.encoder import TransformerEncoder
from xmc.errors import InputError
from xmc.training.optimizers import Optimizers

Factory = Callable[[Path], Encoder]


def static(directory: Path) -> Encoder:
    return StaticEncoder(StaticConfig(dimension=12, table_rows=997, weight_slots=499), torch.Generator().manual_seed(0))


def transformer(directory: Path) -> Encoder:
    return TransformerEncoder.from_pretrained(write_bert(directory))


def transformer_projected_cls(directory: Path) -> Encoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TransformerEncoder.from_pretrained(write_bert(directory), pooling="cls", projection=7)


def decoder_with_prompts_and_images(directory: Path) -> Encoder:
    prompts = {"query_prompt": "the cat {text} and {images} its house", "label_prompt": "{text} on the sea"}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TransformerEncoder.from_pretrained(
            write_decoder(directory), pooling="last", images=ImagesConfig(dimension=4), **prompts
        )


FACTORIES: list[Factory] = [static, transformer, transformer_projected_cls, decoder_with_prompts_and_images]


def test_every_registered_encoder_is_checked_here(tmp_path: Path) -> None:
    built = [factory(tmp_path / str(number)) for number, factory in enumerate(FACTORIES)]
    assert {encoder.kind for encoder in built} == set(ENCODERS)
    assert all(type(encoder) is ENCODERS[encoder.kind] for encoder in built)


def test_every_registered_encoder_has_a_section() -> None:
    assert set(ENCODER_SECTIONS) == set(ENCODERS)
    for section in ENCODER_SECTIONS.values():
        assert section.default_learning_rate > 0


@pytest.fixture(scope="module", params=FACTORIES, ids=lambda factory: str(factory.__name__))
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    factory: Factory = request.param
    return factory(tmp_path_factory.mktemp("model"))


@pytest.fixture
def encoder(built: Encoder) -> Encoder:
    """A copy of its own for each test, ready to encode."""
    return copy.deepcopy(built).eval()


TEXTS = [
    "a boat with two hulls",
    "",
    "the dog runs in its house",
    " \t\n",
    "été naïve ÉTÉ",
    "東京 🚤 \u202eabc\u0301 \x00",
    "a boat",
    "sails " * 500,
]


def sequences(features: RaggedTokens) -> list[list[int]]:
    return [features.take(np.array([row])).values.tolist() for row in range(len(features))]


@torch.no_grad()
def embed(encoder: Encoder, texts: list[str]) -> torch.Tensor:
    return encoder(encoder.featurize(texts))


def test_features_are_ragged_unsigned_and_the_same_each_time(encoder: Encoder) -> None:
    features = encoder.featurize(TEXTS)
    assert len(features) == len(TEXTS)
    assert features.values.dtype.kind == "u"
    assert features.offsets.dtype == np.int64
    assert (features.offsets[0], features.offsets[-1]) == (0, len(features.values))
    assert sequences(encoder.featurize(TEXTS)) == sequences(features)
    assert len(set(map(tuple, sequences(features)))) >= len(TEXTS) - 1  # nothing but the two empty texts may be equal


def test_features_do_not_depend_on_the_other_texts(encoder: Encoder) -> None:
    together = sequences(encoder.featurize(TEXTS))
    assert [sequences(encoder.featurize([text]))[0] for text in TEXTS] == together
    assert sequences(encoder.featurize(TEXTS[::-1])) == together[::-1]
    assert sequences(encoder.featurize([])) == []


def test_features_need_no_learned_parameter(encoder: Encoder) -> None:
    before, key = sequences(encoder.featurize(TEXTS)), encoder.features_key
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    assert sequences(encoder.featurize(TEXTS)) == before
    assert encoder.features_key == key


def test_features_from_the_cache_are_embedded_alike(encoder: Encoder, tmp_path: Path) -> None:
    key = encoder.features_key
    for _ in range(2):
        cached = cached_tokens(TEXTS, encoder.featurize, key, TokenCache(tmp_path))
        with torch.no_grad():
            assert torch.equal(encoder(cached), embed(encoder, TEXTS))
    assert encoder.features_key == key
    assert len(list(tmp_path.iterdir())) == 1


def test_embeddings_have_the_promised_shape_and_type(encoder: Encoder) -> None:
    embeddings = encoder(encoder.featurize(TEXTS))
    assert embeddings.shape == (len(TEXTS), encoder.dimension)
    assert embeddings.dtype == torch.float32
    assert embeddings.isfinite().all()
    assert embeddings.requires_grad
    assert embed(encoder, []).shape == (0, encoder.dimension)


def test_embeddings_do_not_depend_on_the_other_texts(encoder: Encoder) -> None:
    together = embed(encoder, TEXTS)
    alone = torch.cat([embed(encoder, [text]) for text in TEXTS])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(embed(encoder, TEXTS[::-1]).flip(0), together, rtol=1e-5, atol=1e-5)
    several = [TEXTS[0]] * 5
    torch.testing.assert_close(embed(encoder, several), together[:1].expand(5, -1), rtol=1e-5, atol=1e-5)


def test_different_texts_have_different_embeddings(encoder: Encoder) -> None:
    embeddings = embed(encoder, ["a boat", "the dog runs", "sea"])
    assert (torch.cdist(embeddings, embeddings) + 9 * torch.eye(3)).min() > 0.1


def test_an_empty_text_is_zero_or_constant(encoder: Encoder) -> None:
    embeddings = embed(encoder, ["", "a boat", "", "   "])
    torch.testing.assert_close(embeddings[0], embeddings[2], rtol=0, atol=1e-6)
    torch.testing.assert_close(embeddings[0], embeddings[3], rtol=0, atol=1e-6)
    assert embed(encoder, ["", ""]).isfinite().all()


def test_an_empty_sequence_is_zero_or_constant(encoder: Encoder) -> None:
    features = encoder.featurize(["a boat", "the dog runs in its house"])
    with_empty = RaggedTokens(features.values, np.array([0, 0, *features.offsets[1:], features.offsets[-1]]))
    embeddings = encoder(with_empty)
    assert embeddings.isfinite().all()
    assert torch.equal(embeddings[0], embeddings[3])
    with torch.no_grad():
        torch.testing.assert_close(embeddings[1:3], encoder(features), rtol=1e-5, atol=1e-5)


def test_dropout_follows_its_generator_alone(encoder: Encoder) -> None:
    features = encoder.featurize(["a boat with two hulls and sails on the sea"] * 4)

    def dropped(seed: int, others: int) -> torch.Tensor:
        torch.manual_seed(others)
        with torch.no_grad():
            return encoder(encoder.drop(features, 0.5, torch.Generator().manual_seed(seed)))

    assert torch.equal(dropped(1, others=2), dropped(1, others=3))
    assert not torch.allclose(dropped(1, others=2), dropped(2, others=2))
    rows = dropped(1, others=2)
    assert not torch.allclose(rows[0], rows[1]), "each text has tokens of its own dropped"
    assert encoder.drop(features, 0.0) is features
    for share in (-0.1, 1.0):
        with pytest.raises(InputError, match="dropout must be in"):
            encoder.drop(features, share)


def test_dropout_leaves_the_features_as_they_were(encoder: Encoder) -> None:
    features = encoder.featurize(TEXTS)
    before = sequences(features)
    encoder.drop(features, 0.5, torch.Generator().manual_seed(0))
    assert sequences(features) == before


def test_gradient_steps_learn(encoder: Encoder) -> None:
    """With the optimizer that training uses: two texts move together, a third away from them."""
    model = DualEncoder(encoder, encoder)
    optimizers = Optimizers(model, TrainConfig(optimizer={"learning_rate": 1e-3, "weight_decay": 0.0}))
    features = encoder.featurize(["a boat", "two sails", "the dog sleeps"])

    def loss() -> torch.Tensor:
        unit = nn.functional.normalize(model.queries(features))
        return unit[0] @ unit[2] - unit[0] @ unit[1]

    before = float(loss().detach())
    for table in optimizers.tables:
        table.table.pending.clear()
    for _ in range(20):
        loss().backward()
        optimizers.step(1.0)
    assert float(loss().detach()) < before - 0.1


def test_no_gradient_is_kept_where_none_is_asked_for(encoder: Encoder) -> None:
    assert not embed(encoder, TEXTS).requires_grad


def test_a_copy_is_independent(encoder: Encoder) -> None:
    before = embed(encoder, TEXTS)
    twin = copy.deepcopy(encoder)
    assert torch.equal(embed(twin, TEXTS), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2.0)
    assert torch.equal(embed(encoder, TEXTS), before)


LOAD = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from xmc.encoders.registry import ENCODERS

directory = Path(sys.argv[1])
texts = (directory.parent / "texts.txt").read_text(encoding="utf-8").split("\\x1e")
encoder = ENCODERS[sys.argv[2]].load(directory).eval()
with torch.no_grad():
    embeddings = encoder(encoder.featurize(texts))
save_file({"embeddings": embeddings}, directory.parent / "embeddings.safetensors")
print(encoder.kind, encoder.dimension, encoder.features_key)
"""


@pytest.mark.slow
def test_saved_and_loaded_in_another_process(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "written").mkdir()
    encoder.save(tmp_path / "written")
    (tmp_path / "written").rename(tmp_path / "moved")
    texts = [text.strip() for text in TEXTS]
    (tmp_path / "texts.txt").write_text("\x1e".join(texts), encoding="utf-8")
    (tmp_path / "load.py").write_text(LOAD)
    done = subprocess.run(
        [str(warm_commands() / "script"), str(tmp_path / "load.py"), str(tmp_path / "moved"), encoder.kind],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{encoder.kind} {encoder.dimension} {encoder.features_key}\n"
    loaded = load_file(tmp_path / "embeddings.safetensors")["embeddings"]
    torch.testing.assert_close(loaded, embed(encoder, texts), rtol=1e-6, atol=1e-6)


def test_saved_files_are_safetensors_and_text_only(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    endings = {file.suffix for file in tmp_path.rglob("*") if file.is_file()}
    assert ".safetensors" in endings
    assert endings <= {".safetensors", ".json", ".txt", ".jinja", ".model"}
    assert type(encoder).load(tmp_path).state_dict().keys() == encoder.state_dict().keys()


def test_micro_batches_hold_every_row_once(encoder: Encoder) -> None:
    features = encoder.featurize(TEXTS)
    assert sorted(np.concatenate(encoder.micro_batches(features)).tolist()) == list(range(len(TEXTS)))
    assert encoder.micro_batches(encoder.featurize([])) == []
    if encoder.tokens_per_micro_batch is not None:
        tokens = [int(features.lengths[rows].sum()) for rows in encoder.micro_batches(features)]
        assert max(tokens) <= encoder.tokens_per_micro_batch


def test_what_training_takes_is_told(encoder: Encoder) -> None:
    cost = encoder.token_cost()
    assert cost.forward_flops > 0
    assert cost.backward_flops > cost.forward_flops  # something is learned
    encoder.compute_in("bfloat16")
    assert 0 < encoder.token_cost().activation_bytes <= cost.activation_bytes
    assert encoder.compute_in("float32") == "float32"
    learned = sum(p.numel() * p.element_size() for p in encoder.parameters() if p.requires_grad)
    assert encoder.gradient_bytes() <= learned
    for parameter in encoder.parameters():
        parameter.requires_grad_(False)
    assert encoder.gradient_bytes() == 0


def test_rates_of_their_own_are_of_learned_parameters(encoder: Encoder) -> None:
    rates = encoder.learning_rates(LearningRates(encoder=1e-3, images=1e-2))
    assert set(rates) <= {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert all(rate > 0 for rate in rates.values())


def test_modules_to_split_are_of_the_encoder_and_follow_what_they_contain(encoder: Encoder) -> None:
    modules = encoder.splittable_modules()
    assert {id(module) for module in modules} <= {id(module) for module in encoder.modules()}
    for number, module in enumerate(modules):
        inside = {id(inner) for inner in module.modules()} - {id(module)}
        assert not inside & {id(later) for later in modules[number + 1 :]}


def test_threads_encode_alike_where_the_encoder_says_so(encoder: Encoder) -> None:
    if not encoder.is_thread_safe:
        pytest.skip("the encoder says that it encodes in one thread alone")
    expected = embed(encoder, TEXTS)
    twins = [copy.deepcopy(encoder) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for embeddings in pool.map(lambda twin: embed(twin, TEXTS), twins):
            torch.testing.assert_close(embeddings, expected, rtol=1e-6, atol=1e-6)
