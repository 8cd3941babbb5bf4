from muse.spec import Spec

SPEC = Spec("anthropic", "anthropic", "ANTHROPIC_API_KEY", {1: "anthropic-1", 2: "anthropic-2", 3: "anthropic-3"})
