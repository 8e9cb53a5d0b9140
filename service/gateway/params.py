"""What a request may contain, field by field. A field that is not here is refused; a type that is not here, too.

Left out on purpose: `priority` and `cache_salt` (ours to set), `chat_template` and `prompt_embeds` (code and tensors
from strangers), images, audio and video (the engine would fetch their URLs), grammars and beam search (unbounded work).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

MAX_N = 16
MAX_PROMPTS = 16

T = TypeVar("T")
Maybe: TypeAlias = T | UnsetType | None
"""Absent, null or given: absent stays absent on the way to the engine."""

Text = Annotated[str, Meta(max_length=2_000_000)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Penalty = Maybe[Annotated[float, Meta(ge=-2, le=2)]]
Count = Annotated[int, Meta(ge=0, le=2**31)]
TokenId = Annotated[int, Meta(ge=0, le=2**31)]
TokenIds = Maybe[Annotated[list[TokenId], Meta(max_length=1024)]]
StopText = Annotated[str, Meta(min_length=1, max_length=256)]
LogitBias = Annotated[
    dict[Annotated[str, Meta(pattern="^[0-9]{1,10}$")], Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)
]
Flag = Maybe[bool]
Label = Maybe[Annotated[str, Meta(max_length=512)]]
Schema = Maybe[dict[str, Any]]
Model = Annotated[str, Meta(min_length=1, max_length=512)]
Temperature = Maybe[Annotated[float, Meta(ge=0, le=2)]]
TopP = Maybe[Annotated[float, Meta(gt=0, le=1)]]
TopK = Maybe[Annotated[int, Meta(ge=-1, le=2**31)]]
MinP = Maybe[Annotated[float, Meta(ge=0, le=1)]]
Repetition = Maybe[Annotated[float, Meta(gt=0, le=10)]]
Seed = Maybe[Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]]
StopTexts = Annotated[list[StopText], Meta(max_length=16)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Metadata = Maybe[Annotated[dict[str, Annotated[str, Meta(max_length=512)]], Meta(max_length=16)]]


class Closed(Struct, forbid_unknown_fields=True):
    """A JSON object with known fields only; absent ones stay absent when it is written again."""


class TextPart(Closed, tag_field="type", tag="text"):
    text: Text


class RefusalPart(Closed, tag_field="type", tag="refusal"):
    refusal: Text


class CalledFunction(Closed):
    name: Name
    arguments: Text


class ToolCall(Closed):
    function: CalledFunction
    id: Annotated[str, Meta(max_length=256)] | UnsetType = UNSET
    type: Literal["function"] = "function"
    index: int | UnsetType = UNSET


class ChatMessage(Closed):
    """One message; the fields that assistants' replies carry are taken, so that a client may send a reply back."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Maybe[Text | Annotated[list[TextPart | RefusalPart], Meta(max_length=256)]] = UNSET
    name: Maybe[Annotated[str, Meta(max_length=256)]] = UNSET
    tool_calls: Maybe[Annotated[list[ToolCall], Meta(max_length=128)]] = UNSET
    tool_call_id: Maybe[Annotated[str, Meta(max_length=256)]] = UNSET
    refusal: Maybe[Text] = UNSET
    reasoning: Maybe[Text] = UNSET
    reasoning_content: Maybe[Text] = UNSET
    annotations: Maybe[Annotated[list[Any], Meta(max_length=0)]] = UNSET
    audio: UnsetType | None = UNSET
    function_call: UnsetType | None = UNSET


class StreamOptions(Closed):
    include_usage: bool | None = None
    continuous_usage_stats: Maybe[bool] = UNSET
    include_obfuscation: Maybe[bool] = UNSET


class JsonSchema(Closed):
    name: Name
    schema: Schema = UNSET
    strict: Flag = UNSET
    description: Maybe[Text] = UNSET


class TextFormat(Closed, tag_field="type", tag="text"):
    pass


class JsonObjectFormat(Closed, tag_field="type", tag="json_object"):
    pass


class JsonSchemaFormat(Closed, tag_field="type", tag="json_schema"):
    json_schema: JsonSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(Closed):
    """vLLM's own form; `regex` is bounded like every pattern in a schema."""

    json: Schema = UNSET
    regex: Maybe[Annotated[str, Meta(max_length=512)]] = UNSET
    choice: Maybe[Annotated[list[Annotated[str, Meta(max_length=1024)]], Meta(max_length=256)]] = UNSET
    json_object: Flag = UNSET


class FunctionSpec(Closed):
    name: Name
    description: Maybe[Text] = UNSET
    parameters: Schema = UNSET
    strict: Flag = UNSET


class Tool(Closed):
    function: FunctionSpec
    type: Literal["function"] = "function"


class NamedFunction(Closed):
    name: Name


class NamedTool(Closed):
    function: NamedFunction
    type: Literal["function"] = "function"


class TemplateSwitches(Closed):
    """The two chat-template arguments that reasoning models share; a template takes any others from its owner only."""

    enable_thinking: bool | UnsetType = UNSET
    thinking: bool | UnsetType = UNSET


class Common(Closed, kw_only=True):
    """What chat and plain completions share."""

    model: Model
    stream: Maybe[bool] = UNSET
    stream_options: Maybe[StreamOptions] = UNSET
    n: Maybe[Annotated[int, Meta(ge=1, le=MAX_N)]] = UNSET
    max_tokens: Maybe[Count] = UNSET
    temperature: Temperature = UNSET
    top_p: TopP = UNSET
    top_k: TopK = UNSET
    min_p: MinP = UNSET
    frequency_penalty: Penalty = UNSET
    presence_penalty: Penalty = UNSET
    repetition_penalty: Repetition = UNSET
    seed: Seed = UNSET
    stop: Maybe[StopText | StopTexts] = UNSET
    stop_token_ids: TokenIds = UNSET
    include_stop_str_in_output: Flag = UNSET
    ignore_eos: bool | UnsetType = UNSET
    min_tokens: Count | UnsetType = UNSET
    skip_special_tokens: bool | UnsetType = UNSET
    logit_bias: Maybe[LogitBias] = UNSET
    response_format: Maybe[ResponseFormat] = UNSET
    structured_outputs: Maybe[StructuredOutputs] = UNSET
    user: Label = UNSET


class ChatParams(Common, kw_only=True):
    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=2048)]
    max_completion_tokens: Maybe[Count] = UNSET
    logprobs: Flag = UNSET
    top_logprobs: Maybe[Annotated[int, Meta(ge=0, le=20)]] = UNSET
    tools: Maybe[Annotated[list[Tool], Meta(max_length=128)]] = UNSET
    tool_choice: Maybe[Literal["none", "auto", "required"] | NamedTool] = UNSET
    parallel_tool_calls: Flag = UNSET
    reasoning_effort: Maybe[Effort] = UNSET
    include_reasoning: bool | UnsetType = UNSET
    chat_template_kwargs: Maybe[TemplateSwitches] = UNSET
    # OpenAI's own bookkeeping: taken, so that its clients work unchanged, and not passed on.
    store: Flag = UNSET
    metadata: Metadata = UNSET
    service_tier: Label = UNSET
    safety_identifier: Label = UNSET
    prompt_cache_key: Label = UNSET
    prompt_cache_retention: Label = UNSET
    verbosity: Label = UNSET
    modalities: Maybe[list[Literal["text"]]] = UNSET


class CompletionParams(Common, kw_only=True):
    prompt: Text | Annotated[list[Text | TokenId | Annotated[list[TokenId], Meta(min_length=1)]], Meta(min_length=1)]
    logprobs: Maybe[Annotated[int, Meta(ge=0, le=20)]] = UNSET
    echo: Flag = UNSET
    suffix: Maybe[Text] = UNSET
    best_of: Maybe[Literal[1]] = UNSET
