"""What is trained computes what is evaluated: the model that the trainer loads against an engine with the same weights."""

from __future__ import annotations

import shutil

import pytest

from wdct_dist.config.schema import Dtype, EngineConfig, PromptConfig, SamplingConfig

pytestmark = [
    pytest.mark.slow,
    # vLLM, torch, transformers and TRL warn about each other
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def gemma2(small_model, tmp_path_factory):
    """A Gemma 2 of two layers with random weights, whose attention scores are far above their cap."""
    pytest.importorskip("vllm", reason="vLLM is not installed")
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    folder = tmp_path_factory.mktemp("gemma2")
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=49152, head_dim=32, max_position_embeddings=512, attn_logit_softcapping=0.5, initializer_range=0.3, **shape
    )
    Gemma2ForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(small_model / name, folder)
    return folder


def test_a_model_that_caps_its_attention_is_trained_as_it_is_evaluated(gemma2, make_checkpoint, make_prompt):
    pytest.importorskip("trl", reason="TRL is not installed (the extra `align` brings it)")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from wdct_dist.align.tokens import TrainingTokens
    from wdct_dist.align.trainer import load_model
    from wdct_dist.engine.vllm_engine import start_vllm

    prompts = [make_prompt(f"Is {n} or {n + 1} the better number?\nA. {n}\nB. {n + 1}", prompt_id=str(n)) for n in range(8)]
    settings = EngineConfig(max_model_len=256, cpu_cache_gib=0.25, dtype=Dtype.float32)
    engine = start_vllm(make_checkpoint("gemma2", directory=gemma2), settings, PromptConfig(), SamplingConfig(), 1)
    try:
        evaluated = [response.option_logprobs[0] - response.option_logprobs[1] for response in engine.answer(prompts, 0)]
    finally:
        engine.close()

    tokenizer = AutoTokenizer.from_pretrained(gemma2)
    questions = TrainingTokens(tokenizer, PromptConfig()).questions([(prompt.messages, prompt.labels) for prompt in prompts])
    spellings = [tokenizer.convert_tokens_to_ids([label, f"Ġ{label}"]) for label in "AB"]

    def log_odds(model):
        with torch.inference_mode():
            logits = [model.eval()(torch.tensor([prompt_ids])).logits[0, -1] for prompt_ids, _ in questions]
        return [float(torch.logsumexp(row[spellings[0]], 0) - torch.logsumexp(row[spellings[1]], 0)) for row in logits]

    def furthest(model):
        return max(abs(one - other) for one, other in zip(log_odds(model), evaluated, strict=True))

    assert furthest(load_model(gemma2, dtype=torch.float32)) < 1e-3
    assert furthest(AutoModelForCausalLM.from_pretrained(gemma2, dtype=torch.float32)) > 0.05
