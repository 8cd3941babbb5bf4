from muse.spec import Spec

SPEC = Spec("google", "google", "GOOGLE_API_KEY", {1: "google-1", 2: "google-2", 3: "google-3"})
