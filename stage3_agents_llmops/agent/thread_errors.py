"""Why a run of a conversation is refused before it begins."""

from labkit.errors import LabError


class ThreadBusy(LabError):
    """A run is going on in the conversation."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"a run is going on in conversation {thread_id}", "wait for its end, or stop it")


class NotYourThread(LabError):
    """The conversation is another customer's."""

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"there is no conversation {thread_id}", "begin a new one")
