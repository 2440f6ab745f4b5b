"""Swaps in a live engine, on real weights: the small model's first layers, changed in its embeddings, its inner layers, or everywhere."""

from __future__ import annotations

import json
import shutil

import pytest

from wdct_dist.config.schema import EngineConfig, PromptConfig, SamplingConfig
from wdct_dist.errors import CheckpointError, EngineError, SwapRefused

pytestmark = [
    pytest.mark.slow,
    # vLLM, torch and transformers warn about each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    # and a vLLM that broke leaves sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

NUM_LAYERS = 4
INNER = NUM_LAYERS * 9 + 1
"""Tensors of the layers and the last norm."""

OTHER_TEMPLATE = "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}[assistant]"


def is_inner(name: str) -> bool:
    return "embed_tokens" not in name and "lm_head" not in name


CHANGES = {
    "base": lambda name: False,
    "embeddings": lambda name: not is_inner(name),
    "inner": is_inner,
    "everything": lambda name: True,
}
"""Which tensors each variant has otherwise than the small model."""


@pytest.fixture(scope="module")
def make_model(small_model, tmp_path_factory):
    """The small model's first layers with some tensors changed by noise; untied with an output layer of its own."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    import torch
    from safetensors.torch import load_file, save_file

    whole = load_file(small_model / "model.safetensors")

    def noisy(tensor, generator):
        noise = torch.randn(tensor.shape, generator=generator)
        return (tensor.float() + 0.05 * tensor.float().std() * noise).to(tensor.dtype)

    def make(name, *, tied=True, edit=None, template=None, **settings):
        folder = tmp_path_factory.mktemp("tied" if tied else "untied") / name
        folder.mkdir()
        for file in small_model.iterdir():
            if file.suffix != ".safetensors":
                shutil.copy(file, folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config |= {"num_hidden_layers": NUM_LAYERS, "tie_word_embeddings": tied, **settings}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        if template is not None:
            (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
        tensors = {key: tensor for key, tensor in whole.items() if "layers." not in key or int(key.split(".")[2]) < NUM_LAYERS}
        if not tied:
            tensors["lm_head.weight"] = noisy(tensors["model.embed_tokens.weight"], torch.Generator().manual_seed(99))
        generator = torch.Generator().manual_seed(list(CHANGES).index(name))
        tensors = {key: noisy(tensor, generator) if CHANGES[name](key) else tensor for key, tensor in sorted(tensors.items())}
        if edit is not None:
            edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


@pytest.fixture(scope="module")
def tied(make_model):
    """The four variants with one matrix for embedding and output; `everything` has a chat template of its own."""
    return {name: make_model(name, template=OTHER_TEMPLATE if name == "everything" else None) for name in CHANGES}


@pytest.fixture(scope="module")
def start():
    """Starts engines one after the other; the last one is closed with the module."""
    from wdct_dist.engine.vllm_engine import start_vllm

    running = []

    def started(checkpoint):
        while running:
            running.pop().close()
        settings = EngineConfig(max_model_len=256, cpu_cache_gib=0.25)
        running.append(start_vllm(checkpoint, settings, PromptConfig(), SamplingConfig(), 1))
        return running[-1]

    yield started
    while running:
        running.pop().close()


@pytest.fixture
def prompts(make_prompt):
    """Longer than a block of the prefix cache, with a common beginning, so that stale blocks would be used."""
    begin = "Think about the following question with care, and say which of the two options you hold to be right. " * 2
    return [make_prompt(f"{begin}Is {n} or {n + 1} the better number?\nA. {n}\nB. {n + 1}", prompt_id=str(n)) for n in range(24)]


@pytest.fixture
def named(make_checkpoint):
    return lambda name, directory: make_checkpoint(name, directory=directory)


@pytest.mark.parametrize("is_tied", [True, False], ids=["tied", "untied"])
def test_answers_after_swaps_there_and_back_are_those_of_fresh_engines(is_tied, tied, make_model, start, prompts, named):
    models = tied if is_tied else {name: make_model(name, tied=False) for name in CHANGES}
    fresh = {}
    for name, directory in models.items():
        engine = start(named(name, directory))
        fresh[name] = engine.answer(prompts, 0)
    assert len({responses[0].option_logprobs for responses in fresh.values()}) == 4
    num_output = 1 if is_tied else 2
    for number, name in enumerate(["base", "embeddings", "inner", "everything", "base", "inner", "everything"], start=1):
        swap = engine.swap(named(name, models[name]))
        assert engine.answer(prompts, 0) == fresh[name], name
        assert swap.facts.num_swaps == engine.facts.num_swaps == number
        assert swap.canary.num_tensors == INNER + num_output
        if number == 2:  # from base
            assert swap.canary.num_told_apart == num_output
        else:
            assert swap.canary.num_told_apart >= INNER


def test_what_cannot_be_swapped_is_refused_and_the_engine_goes_on(tied, make_model, start, prompts, named):
    engine = start(named("base", tied["base"]))
    engine.answer(prompts, 0)
    before = engine.answer(prompts, 0)  # with the prefix cache full, as afterwards

    def without(tensors):
        del tensors["model.layers.2.mlp.up_proj.weight"]

    def misshapen(tensors):
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()

    def smaller(tensors):
        tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:-64].clone()

    other_tokens = make_model("everything")
    vocabulary = json.loads((other_tokens / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = vocabulary["model"]["vocab"]
    tokens["A"], tokens["B"] = tokens["B"], tokens["A"]
    (other_tokens / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    refused = {
        r"it lacks 1 of the engine's 38 tensors: model\.layers\.2\.mlp\.up_proj\.weight": make_model("everything", edit=without),
        r"tensor model\.norm\.weight is F32\[575\], the engine's F32\[576\]": make_model("everything", edit=misshapen),
        "another vocabulary: 49088 tokens, the engine has 49152": make_model("everything", edit=smaller, vocab_size=49088),
        "another vocabulary: its tokenizer's 49152 tokens are not the engine's": other_tokens,
        "config.json differs in tie_word_embeddings": make_model("everything", tied=False),
    }
    for reason, directory in refused.items():
        with pytest.raises(SwapRefused, match=reason):
            engine.swap(named("bad", directory))
        assert engine.facts.num_swaps == 0
    assert engine.answer(prompts, 0) == before
    engine.swap(named("inner", tied["inner"]))
    assert engine.answer(prompts[:1], 0)[0].option_logprobs != before[0].option_logprobs


def test_an_output_layer_of_its_own_is_not_lost_behind_a_tied_one(make_model, start, prompts, named):
    """config.json says tied, and the files have an output layer: equal to the embedding in one checkpoint, another one in the other."""

    def own_head(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    def other_head(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).clone()

    equal, other = make_model("base", edit=own_head), make_model("inner", edit=other_head)
    engine = start(named("other", other))
    assert (engine.facts.start_proof.num_tensors, engine.facts.start_proof.num_not_proven) == (INNER + 2, 0)
    fresh = engine.answer(prompts, 0)
    engine.swap(named("equal", equal))  # two tensors can be made equal
    swapped = engine.answer(prompts, 0)
    engine = start(named("equal", equal))
    assert engine.answer(prompts, 0) == swapped
    # one tensor cannot be two
    with pytest.raises(SwapRefused, match=r"lm_head\.weight \(it differs from the embedding, and the engine has one tensor for both\)"):
        engine.swap(named("other", other))
    again = engine.answer(prompts, 0)
    assert [one.option_logprobs for one in again] == [one.option_logprobs for one in swapped]
    assert max(abs(a.option_logprobs[0] - b.option_logprobs[0]) for a, b in zip(fresh, swapped, strict=True)) > 1


def test_a_start_fails_if_the_engine_does_not_compute_with_the_weights_of_the_files(tied, make_model, start, named, monkeypatch):
    from wdct_dist.engine import vllm_canary

    def dropped(tensors):
        tensors["model.layers.1.self_attn.o_proj.bias"] = tensors["model.norm.weight"].clone()

    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.self_attn\.o_proj\.bias: the model has no such parameter"):
        start(named("dropped", make_model("base", edit=dropped)))
    # the other two pieces fill the rest of this layer
    lacking = make_model("base", edit=lambda tensors: tensors.pop("model.layers.1.self_attn.q_proj.weight"))
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.self_attn\.q_proj\.weight: no tensor of the files fills this part"):
        start(named("lacking", lacking))
    # other values than the files', as after a loader that left a layer out
    files = vllm_canary.Files
    monkeypatch.setattr(vllm_canary, "Files", lambda directory: files(tied["inner"]))
    with pytest.raises(CheckpointError, match=r"does not compute with the weights of these files: model\.layers\.0\..*values differ"):
        start(named("base", tied["base"]))
    monkeypatch.undo()
    assert start(named("base", tied["base"])).facts.start_proof.num_tensors == INNER + 1


def test_a_chat_template_comes_along_and_goes_away_again(tied, make_model, start, prompts, named):
    plain = make_model("inner")
    (plain / "chat_template.jinja").unlink()
    engine = start(named("base", tied["base"]))
    assert engine.facts.settings["prompt_format"] == "chat"
    digests = [engine.answer(prompts[:1], 0)[0].rendered_digest]
    assert engine.swap(named("plain", plain)).facts.settings["prompt_format"] == "plain"
    digests.append(engine.answer(prompts[:1], 0)[0].rendered_digest)
    engine.swap(named("everything", tied["everything"]))
    digests.append(engine.answer(prompts[:1], 0)[0].rendered_digest)
    engine.swap(named("base", tied["base"]))
    assert engine.facts.settings["prompt_format"] == "chat"
    assert len(set(digests)) == 3
    assert engine.answer(prompts[:1], 0)[0].rendered_digest == digests[0]


def test_the_canary_finds_an_output_layer_that_was_left_as_it_was(tied, start, prompts, named, monkeypatch):
    import torch

    if torch.cuda.is_available():
        pytest.skip("only on a CPU vLLM packs a copy of the output layer")
    if not torch.cpu._is_avx512_supported():
        pytest.skip("without AVX-512 there is no such copy to be left as it was")
    from wdct_dist.engine import vllm_worker

    engine = start(named("base", tied["base"]))
    monkeypatch.setattr(vllm_worker, "renew_output_layer", lambda model: None)
    with pytest.raises(
        EngineError, match=r"does not have the weights of its new checkpoint: model\.embed_tokens\.weight \(ParallelLMHead\)"
    ):
        engine.swap(named("embeddings", tied["embeddings"]))
    with pytest.raises(EngineError, match="the engine broke"):
        engine.answer(prompts, 0)
    with pytest.raises(EngineError, match="the engine broke"):
        engine.swap(named("base", tied["base"]))


def test_the_canary_finds_an_inner_layer_that_was_left_as_it_was(tied, start, named, monkeypatch):
    from safetensors.torch import load_file
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    old = load_file(tied["base"] / "model.safetensors")
    real = DefaultModelLoader.get_all_weights

    def stale(self, model_config, model):
        for name, tensor in real(self, model_config, model):
            yield name, old[name] if name in ("model.layers.1.self_attn.v_proj.weight", "model.norm.weight") else tensor

    engine = start(named("base", tied["base"]))
    monkeypatch.setattr(DefaultModelLoader, "get_all_weights", stale)
    with pytest.raises(EngineError) as caught:
        engine.swap(named("inner", tied["inner"]))
    assert "model.layers.1.self_attn.v_proj.weight (QKVParallelLinear)" in str(caught.value)
    assert "model.norm.weight (RMSNorm)" in str(caught.value)
    assert "q_proj" not in str(caught.value)


def test_the_canary_finds_a_prefix_cache_that_was_not_emptied(tied, start, named, monkeypatch):
    from vllm import LLM

    engine = start(named("base", tied["base"]))
    monkeypatch.setattr(LLM, "reset_prefix_cache", lambda self: True)
    with pytest.raises(EngineError, match="tokens of its prompt still came from the old weights' prefix cache"):
        engine.swap(named("inner", tied["inner"]))


def test_an_error_while_loading_ends_the_engine_and_a_fresh_one_starts(tied, start, prompts, named, monkeypatch):
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    def broken(self, model_config, model):
        raise OSError("the disk went away")

    engine = start(named("base", tied["base"]))
    with monkeypatch.context() as patch:
        patch.setattr(DefaultModelLoader, "get_all_weights", broken)
        with pytest.raises(EngineError, match="the disk went away"):
            engine.swap(named("inner", tied["inner"]))
    with pytest.raises(EngineError, match="the engine broke"):
        engine.answer(prompts, 0)
    assert start(named("inner", tied["inner"])).answer(prompts, 0)[0].error is None
