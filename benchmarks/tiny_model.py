"""A random Qwen3, of about 4 M parameters unless it is wider, and random LoRA adapters for it, made in a second.

Random weights are a hard case for equality tests: near-ties between tokens are common, so a wrong
bit anywhere shows in the greedy replies.
"""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCAB = 2048
CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def save_model(folder: Path, *, seed: int = 0, width: int = 256) -> Path:
    """Write the base model and its byte-level tokenizer in Hugging Face's layout, bfloat16."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=4,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        head_dim=64,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=VOCAB - 1,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                weight.normal_(0, 1.5 / weight.shape[1] ** 0.5)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, then fillers, so that every id of the model is text."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces += [f"[{n}]" for n in range(len(pieces), VOCAB - 1)] + ["</s>"]
    vocabulary = {piece: n for n, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", chat_template=CHAT_TEMPLATE)


def save_adapter(
    folder: Path,
    model: Path,
    *,
    seed: int,
    rank: int = 16,
    targets: tuple[str, ...] = LINEAR,
    strength: float = 0.5,
) -> Path:
    """Write a PEFT adapter whose change to each layer is about `strength` of that layer's output."""
    torch.manual_seed(seed)
    base = Qwen3ForCausalLM.from_pretrained(model, dtype=torch.float32)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), task_type="CAUSAL_LM")
    peft = get_peft_model(base, config)
    with torch.no_grad():
        for name, weight in peft.named_parameters():
            if "lora_A" in name:
                weight.normal_(0, weight.shape[1] ** -0.5)
            elif "lora_B" in name:
                weight.normal_(0, strength / 2 * rank**-0.5)
    peft.to(torch.bfloat16).save_pretrained(folder)
    return folder
