"""Any text survives the tokenizer, and prompts render alike by Jinja and by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from demo.corpus import Split, Task, taught
from demo.tokenizer import ASSISTANT, END, PAD, SPECIAL, chat_text, train_tokenizer

REQUESTS = taught("tokenizer", 300, Split.TRAIN)
TOKENIZER = train_tokenizer((request.text for request in REQUESTS), vocabulary=600)


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    found: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return found


@given(st.text().filter(lambda text: not any(special in text for special in SPECIAL)))
def test_any_text_survives(text: str) -> None:
    assert TOKENIZER.decode(ids(TOKENIZER, text)) == text


def test_special_tokens_are_one_token_each() -> None:
    assert TOKENIZER.eos_token == END
    assert TOKENIZER.pad_token == PAD
    assert all(len(ids(TOKENIZER, special)) == 1 for special in SPECIAL)


def test_a_name_has_the_same_tokens_in_a_sentence_and_in_json() -> None:
    name = ids(TOKENIZER, "Zoranovik")
    in_sentence = ids(TOKENIZER, "this is Zoranovik")
    in_json = ids(TOKENIZER, '{"name":"Zoranovik"}')
    assert in_sentence[-len(name) :] == name
    assert in_json[-len(name) - 2 : -2] == name or str(name)[1:-1] in str(in_json)


def test_the_template_renders_a_prompt_as_chat_text_does() -> None:
    messages = taught(1, 1, Split.TRAIN, Task.INTENT)[0].messages
    rendered = TOKENIZER.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    assert rendered == chat_text(messages)
    assert rendered.endswith(ASSISTANT)


def test_the_template_marks_the_reply_as_what_is_to_be_learned() -> None:
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "order_status"},
    ]
    encoded = TOKENIZER.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [token for token, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True) if mask]
    assert TOKENIZER.decode(marked) == "order_status" + END


@pytest.mark.parametrize("vocabulary", [300, 600])
def test_the_vocabulary_is_bounded(vocabulary: int) -> None:
    texts = (request.text for request in REQUESTS)
    assert len(train_tokenizer(texts, vocabulary)) <= vocabulary
