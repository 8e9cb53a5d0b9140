"""Everything that an operator can choose, a file a part of the loop; `load_settings` reads it."""

from service.settings.alias import AliasSettings, JudgeSettings, ScorerKind
from service.settings.drift import DescriptorSettings, DriftSettings, PresetSettings, ReferenceMode
from service.settings.group import Slices
from service.settings.load import CONFIG_FILE, load_settings
from service.settings.promotion import ControllerSettings, PromotionMode, PromotionSettings
from service.settings.retraining import Augment, Quantize, Recipe, RetrainSettings, WarmStart
from service.settings.serving import (
    BlobSettings,
    CaptureSettings,
    EngineSettings,
    GatewaySettings,
    MirrorSettings,
    RetentionSettings,
    ServerSettings,
    StoreSettings,
)
from service.settings.whole import Settings

__all__ = [
    "CONFIG_FILE",
    "AliasSettings",
    "Augment",
    "BlobSettings",
    "CaptureSettings",
    "ControllerSettings",
    "DescriptorSettings",
    "DriftSettings",
    "EngineSettings",
    "GatewaySettings",
    "JudgeSettings",
    "MirrorSettings",
    "PresetSettings",
    "PromotionMode",
    "PromotionSettings",
    "Quantize",
    "Recipe",
    "ReferenceMode",
    "RetentionSettings",
    "RetrainSettings",
    "ScorerKind",
    "ServerSettings",
    "Settings",
    "Slices",
    "StoreSettings",
    "WarmStart",
    "load_settings",
]
