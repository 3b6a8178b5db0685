"""What the routes read and write, as the OpenAPI page shows it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, model_validator

LONGEST_OPERATOR_TEXT = 4000


def whole_letters(text: str) -> str:
    """JSON allows half a surrogate pair, as a client that cuts an emoji in two sends; nothing can store it."""
    return text.encode("utf-8", "replace").decode()


Text = Annotated[str, AfterValidator(whole_letters)]


class Strict(BaseModel):
    """A body without unknown fields: a misspelt name is an error, not nothing."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(BaseModel):
    """Every refusal."""

    error: str = Field(description="what is wrong", examples=["there is no run run_0"])
    try_next: str = Field(alias="try", description="what to do next", examples=["again in 2 s"])
    code: str | None = Field(default=None, description="one word for programs, such as draining")


class NewThread(Strict):
    """A conversation is opened."""

    language: Literal["en", "zh"] | None = Field(default=None, description="until the customer has written")


class ThreadId(BaseModel):
    """A conversation was opened."""

    thread_id: str = Field(examples=["th_5f0c9a1be0d24c77"])


class ThreadLine(BaseModel):
    """One of a customer's conversations."""

    thread_id: str
    title: str = Field(description="the first message, shortened, personal data masked")
    language: str | None
    created_at: float = Field(description="seconds since 1970")
    updated_at: float
    run_id: str | None = Field(description="the run that is going on")
    human: bool = Field(description="a person answers in this conversation")


class ThreadList(BaseModel):
    """A customer's conversations, the last used first."""

    threads: list[ThreadLine]


class RunningRun(BaseModel):
    """The run that is going on: read its events from `last_seq` on after the snapshot, or from 0."""

    run_id: str
    last_seq: int


class Snapshot(BaseModel):
    """A conversation as it stands: what a page needs after a reload."""

    model_config = ConfigDict(extra="allow")  # the agents' own fields: slots, active_agent, proposal, human, turn, ...

    thread_id: str
    customer_id: str
    language: str | None
    created_at: float
    run: RunningRun | None
    messages: list[dict[str, Any]] = Field(
        description="role, text, turn, citations; run_id where it is known; of an agent's message also agent, thumb, "
        "the proposal that it asked about, and decided, the decision that it carried out"
    )
    proposal: dict[str, Any] | None = Field(default=None, description="what waits for the customer's yes or no")
    human: bool = False


class DecisionBody(Strict):
    """Yes or no to the proposal of an `interrupt` event."""

    proposal_id: Text = Field(min_length=1, max_length=100)
    approve: StrictBool


class NewRun(Strict):
    """Either a message or a decision."""

    message: Text | None = Field(default=None, examples=["Where is my order KM204817?"])
    decision: DecisionBody | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "NewRun":
        if (self.message is None) == (self.decision is None):
            raise ValueError("give either a message or a decision")
        return self


class RunAccepted(BaseModel):
    """The run goes on by itself; its events tell how."""

    run_id: str = Field(examples=["run_9b1f6c0d33aa4e21"])
    events: str = Field(examples=["/runs/run_9b1f6c0d33aa4e21/events"])


class RunStatus(BaseModel):
    """A run."""

    run_id: str
    thread_id: str
    status: Literal["running", "ended"]
    reason: str | None = Field(description="answered, waiting, human, cancelled or failed")
    turn: int | None
    last_seq: int
    created_at: float
    ended_at: float | None
    attempts: int = Field(description="processes that have worked on it")


class FeedbackBody(Strict):
    """A thumb."""

    score: Literal[1, -1]
    comment: Text | None = Field(default=None, max_length=1000)


class Ticket(BaseModel):
    """A customer who waits for a person, or talks to one."""

    ticket_id: str | int
    thread_id: str
    customer_id: str
    name: str
    language: str
    summary: str
    status: str
    created_at: str | float
    position: int = Field(description="in the queue, from 1")


class Queue(BaseModel):
    """Who waits, the longest first."""

    queue: list[Ticket]


class OperatorText(Strict):
    """What the person writes."""

    text: Text = Field(min_length=1, max_length=LONGEST_OPERATOR_TEXT)


class Health(BaseModel):
    """What is served."""

    status: Literal["ready", "draining", "stopping", "degraded"]
    release: str = Field(description="what is served: a manifest's SHA-256, shortened, or checkout")
    instance: str = Field(description="the name of this process among those of the shop")
    understander: str
    wording: str
    model: str | None
    event_schema: int = Field(alias="schema", description="version of the events")
    runs: dict[str, int] = Field(description="active, waiting, streams")


class Draining(BaseModel):
    """How far the end is."""

    status: Literal["draining"]
    runs: int = Field(description="that go on")


class Topology(BaseModel):
    """The graph, drawn from the code."""

    mermaid: str
    nodes: list[Any]
    edges: list[dict[str, Any]]


class DemoCustomer(BaseModel):
    """Somebody to be."""

    customer_id: str
    name: str
    language: str
    token: str


class Demo(BaseModel):
    """Tokens to try the service with."""

    customers: list[DemoCustomer]
    operator: dict[str, str]
