"""Small rules of conversation: which of the listed things is meant, is somebody angry, is it a question about rules.

All of them are about the form of a message, not its meaning; the meaning is the understander's.
"""

import re
import unicodedata
from typing import Any

from data.customer_service.normalise import order_number
from stage3_agents_llmops.agent.shop.product_names import similarity

ORDINALS = (
    r"\b(?:first|1st|number one|no\.? ?1|option 1)\b|第一|头一个|^\s*(?:1|一|①)[.。、]?\s*$",
    r"\b(?:second|2nd|number two|no\.? ?2|option 2)\b|第二|^\s*(?:2|二|②)[.。、]?\s*$",
    r"\b(?:third|3rd|number three|no\.? ?3|option 3)\b|第三|^\s*(?:3|三|③)[.。、]?\s*$",
    r"\b(?:fourth|4th|number four|no\.? ?4|option 4)\b|第四|^\s*(?:4|四|④)[.。、]?\s*$",
    r"\b(?:fifth|5th|number five|no\.? ?5|option 5)\b|第五|^\s*(?:5|五|⑤)[.。、]?\s*$",
    r"\b(?:sixth|6th|number six|no\.? ?6|option 6)\b|第六|^\s*(?:6|六|⑥)[.。、]?\s*$",
)
LAST = r"\b(?:the last one|last in the list|bottom one)\b|最后一个|最下面"
LATEST = r"\b(?:latest|newest|most recent|recent one)\b|最新|最近(?:的|那|一)"
OTHER = r"\b(?:another|a different|other|not that one|the rest)\b|别的|另一|另外(?:一|那)|其他|其它|换一[个单]订单"
PRICE = r"\b(?:price|costs?|how much|expensive|cheap)\b|多少钱|价格|价钱|什么价|怎么卖|贵不贵"
BACK = r"\b(?:it|that|this|them|those|the order|the parcel|the package)\b|它|[这那](?:个|单|件|笔)|该订单"
ANGRY = re.compile(
    r"\b(?:ridiculous|unacceptable|outrageous|disgusting|pathetic|useless|incompetent|scam(?:mers?)?|fraud|liars?|"
    r"furious|fed up|sick of|sick and tired|worst (?:shop|service|company|store|experience)|terrible (?:service|shop)|"
    r"horrible service|rip[- ]?off|had enough|wasting my time|waste of time|damn|bloody|wtf|what the hell|idiots?|"
    r"stupid|joke of a|never (?:buy|shop|order) (?:here|again))\b|!{3,}|"
    r"气死|太过分|过分了|垃圾|骗子|骗人|坑人|坑爹|无语|受够|恶心|差劲|太差了|什么破|破店|黑店|忍无可忍|岂有此理|搞什么|烦死|"
    r"滚|妈的|他妈|废物|糊弄|敷衍|耍我|什么玩意|火大|！{3,}",
    re.IGNORECASE,
)
GENERAL = re.compile(
    r"\b(?:policy|policies|in general|generally|usually|normally|how long do i have|how many days|how do i|how can i|"
    r"how long (?:can|may) (?:i|we|one|customers)|"
    r"how does|how do (?:returns|refunds|exchanges)|what happens (?:if|when)|is it possible|is there a (?:fee|charge)|"
    r"do you (?:offer|accept|take|charge|ship|deliver)|do you have (?:an?|any) (?:policy|rules?|warranty|guarantee|"
    r"fees?|shops?|stores?|hotline|phone|limits?)|can (?:i|you|one|customers) (?:still )?(?:pay|use|get a gift)|"
    r"how much (?:is|does) (?:shipping|delivery)|what(?:'s| is| are) (?:your|the) (?:return|refund|shipping|"
    r"delivery|exchange|warranty|opening|cancel\w*)|when (?:do|will) refunds?|who pays|are there any rules)\b|"
    r"政策|规定|规则|流程|期限|时限|一般|通常|怎么(?:退|换|取消|申请|开|付|支付|联系|收费|改)|如何|多少天|几天(?:内|之内)|多久(?:内|之内|能|可以|到账)|"
    r"是否支持|支持.{0,8}吗|运费|谁(?:出|承担|付)|保修期|营业时间|有没有(?:手续费|押金)|要不要(?:手续费|运费)|什么情况",
    re.IGNORECASE,
)
FORBIDDEN = {  # wishes that no tool can fulfil, by the rule that forbids them
    "R12": re.compile(
        r"\b(?:discounts?|vouchers?|coupons?|goodwill|compensat\w+|store credit|free (?:gift|item|month|one)|for free|"
        r"(?:money|percent|%) off|price match|refund me (?:anyway|half)|partial refund)\b|"
        r"优惠券|代金券|折扣|打折|打.折|补偿|赔偿|赔我|返现|红包|便宜点|免单|送我一个|补差价",
        re.IGNORECASE,
    ),
    "R11": re.compile(
        r"\b(?:refund|money|pay|transfer|send)\b.{0,40}\b(?:to|into|on) (?:an?|my|this|the|another)? ?"
        r"(?:different|other|new|wife's|husband's|friend's|bank|paypal)? ?(?:card|account|paypal|wallet)\b|\bin cash\b|"
        r"(?:退|打|转)到.{0,10}(?:卡|账户|账号|微信|支付宝)|换(?:一)?张卡|退现金",
        re.IGNORECASE,
    ),
}
QUESTION = re.compile(
    r"[?？]|^\s*(?:what|how|when|where|which|who|why|do|does|is|are|can|could|will)\b|吗|呢|怎么|什么|多少|哪",
    re.IGNORECASE,
)


def pick_option(text: str, options: list[dict[str, Any]]) -> str | None:
    """Which of the listed things a customer means: by its number, its place, its name, or "the latest".

    Tried in this order: an order number that is among the values ("KM204817", also "k m 204817"); the value itself; a
    place in the list ("the second one", "第二个", "2"); the latest, where options have dates; a name ("the lamp one"),
    if exactly one option's names fit it.

    Args:
        options: each with "value" and, optionally, "names" (what it is called) and "date" (ISO 8601).

    Returns:
        The chosen option's value, or None when it is not clear.
    """
    text = unicodedata.normalize("NFKC", text)
    values = [option["value"] for option in options]
    written = {order_number(found) for found in re.findall(r"[A-Za-z] ?[A-Za-z][ -]?\d{3} ?\d{3}", text)}
    written |= {f"{value[:2]}{digits}" for digits in re.findall(r"\b\d{6}\b", text) for value in values[:1]}
    chosen = [value for value in values if value in written or value.casefold() in text.casefold()]
    if len(chosen) == 1:
        return chosen[0]
    for place, pattern in enumerate(ORDINALS[: len(options)]):
        if re.search(pattern, text, re.IGNORECASE):
            return values[place]
    if re.search(LAST, text, re.IGNORECASE):
        return values[-1]
    dated = [option for option in options if option.get("date")]
    if dated and re.search(LATEST, text, re.IGNORECASE):
        return max(dated, key=lambda option: option["date"])["value"]
    fits = [option["value"] for option in options if any(named(text, name) for name in option.get("names", ()))]
    return fits[0] if len(fits) == 1 else None


def named(text: str, name: str) -> bool:
    """Whether a text mentions a thing: its whole name, or its last word as in "the lamp one" for "desk lamp"."""
    said, name = text.casefold(), name.casefold()
    if name in said or similarity(text, name) >= 0.6:
        return True
    last = name.split()[-1]
    return len(last) > 2 and re.search(rf"\b{re.escape(last)}s?\b", said) is not None


def is_angry(text: str) -> bool:
    """Whether a person would notice anger: strong words, three exclamation marks, or shouting."""
    letters = [letter for letter in text if letter.isascii() and letter.isalpha()]
    shouting = len(letters) >= 15 and sum(letter.isupper() for letter in letters) > 0.8 * len(letters)
    return shouting or ANGRY.search(text) is not None


def asks_about_rules(text: str) -> bool:
    """Whether a message asks how things are done here, as in "how many days do I have to return something?"."""
    return GENERAL.search(text) is not None and QUESTION.search(text) is not None


def wants_another(text: str) -> bool:
    """Whether "my other order" is meant, and so not the one that was talked about."""
    return re.search(OTHER, text, re.IGNORECASE) is not None


def points_back(text: str) -> bool:
    """Whether a message speaks of something that was named before, as "it" or "that one"."""
    return re.search(BACK, text, re.IGNORECASE) is not None


def forbidden_wish(text: str) -> str | None:
    """The rule that forbids what is asked for: R11 (money elsewhere), R12 (discounts and goodwill), or None."""
    return next((rule for rule, pattern in FORBIDDEN.items() if pattern.search(text)), None)


def asks_the_price(text: str) -> bool:
    """Whether a message asks what something costs."""
    return re.search(PRICE, text, re.IGNORECASE) is not None
