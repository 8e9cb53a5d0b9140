"""What a request to /v1/messages may contain: Anthropic's fields as far as vLLM has them, and text only.

Taken and not passed on: `metadata`, `service_tier`, `context_management` (agents send it; vLLM edits no context). Marks
for caching say nothing to vLLM, which caches by itself.
Refused: images and documents (the engine would fetch their URLs) and tools that Anthropic's servers would run.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from service.gateway.params import (
    Closed,
    Count,
    Flag,
    Label,
    Maybe,
    Model,
    Name,
    Schema,
    StopTexts,
    Temperature,
    TemplateSwitches,
    Text,
    TopK,
    TopP,
)

Id = Annotated[str, Meta(max_length=256)]


class CacheControl(Closed):
    type: Literal["ephemeral"]
    ttl: Maybe[Literal["5m", "1h"]] = UNSET


class Block(Closed, kw_only=True):
    cache_control: Maybe[CacheControl] = UNSET


class TextBlock(Block, tag_field="type", tag="text", kw_only=True):
    text: Text
    citations: Maybe[Annotated[list[Any], Meta(max_length=0)]] = UNSET


class ThinkingBlock(Block, tag_field="type", tag="thinking", kw_only=True):
    thinking: Text
    signature: Maybe[Text] = UNSET


class RedactedThinkingBlock(Block, tag_field="type", tag="redacted_thinking", kw_only=True):
    data: Text


class ToolUseBlock(Block, tag_field="type", tag="tool_use", kw_only=True):
    id: Id
    name: Name
    input: dict[str, Any]
    caller: UnsetType | None = UNSET
    toolset_name: UnsetType | None = UNSET


class ToolReferenceBlock(Block, tag_field="type", tag="tool_reference", kw_only=True):
    tool_name: Name


class ToolResultBlock(Block, tag_field="type", tag="tool_result", kw_only=True):
    tool_use_id: Id
    content: Maybe[Text | Annotated[list[TextBlock | ToolReferenceBlock], Meta(max_length=256)]] = UNSET
    is_error: Flag = UNSET
    toolset_name: UnsetType | None = UNSET


AnyBlock = TextBlock | ThinkingBlock | RedactedThinkingBlock | ToolUseBlock | ToolResultBlock


class Message(Closed):
    role: Literal["user", "assistant", "system"]
    content: Text | Annotated[list[AnyBlock], Meta(max_length=256)]


class MessageTool(Block, kw_only=True):
    name: Name
    input_schema: dict[str, Any]
    description: Maybe[Text] = UNSET
    type: Maybe[Literal["custom"]] = UNSET
    strict: Flag = UNSET
    defer_loading: Flag = UNSET
    input_examples: Maybe[Annotated[list[dict[str, Any]], Meta(max_length=64)]] = UNSET
    eager_input_streaming: Flag = UNSET
    allowed_callers: Maybe[list[Literal["direct"]]] = UNSET


class ToolChoice(Closed):
    type: Literal["auto", "any", "tool", "none"]
    name: Maybe[Name] = UNSET
    disable_parallel_tool_use: Flag = UNSET


class MessageFormat(Closed):
    type: Literal["json_schema"]
    schema: Schema = UNSET


class OutputConfig(Closed):
    effort: Maybe[Literal["low", "medium", "high", "xhigh", "max"]] = UNSET
    format: Maybe[MessageFormat] = UNSET


class ThinkingEnabled(Closed, tag_field="type", tag="enabled"):
    budget_tokens: Annotated[int, Meta(ge=1024, le=2**31)]
    display: Label = UNSET


class ThinkingDisabled(Closed, tag_field="type", tag="disabled"):
    pass


class ThinkingAdaptive(Closed, tag_field="type", tag="adaptive"):
    display: Label = UNSET


class Who(Closed):
    user_id: Label = UNSET


class Counted(Closed, kw_only=True):
    """What counting tokens and answering share."""

    model: Model
    messages: Annotated[list[Message], Meta(min_length=1, max_length=2048)]
    system: Maybe[Text | Annotated[list[TextBlock], Meta(max_length=256)]] = UNSET
    tools: Maybe[Annotated[list[MessageTool], Meta(max_length=128)]] = UNSET
    tool_choice: Maybe[ToolChoice] = UNSET
    thinking: Maybe[ThinkingEnabled | ThinkingDisabled | ThinkingAdaptive] = UNSET
    output_config: Maybe[OutputConfig] = UNSET
    cache_control: Maybe[CacheControl] = UNSET
    context_management: Schema = UNSET
    chat_template_kwargs: Maybe[TemplateSwitches] = UNSET


class CountTokensParams(Counted, kw_only=True):
    pass


class MessagesParams(Counted, kw_only=True):
    max_tokens: Count
    stream: Maybe[bool] = UNSET
    stop_sequences: Maybe[StopTexts] = UNSET
    temperature: Temperature = UNSET
    top_k: TopK = UNSET
    top_p: TopP = UNSET
    metadata: Maybe[Who] = UNSET
    service_tier: Maybe[Literal["auto", "standard_only"]] = UNSET
