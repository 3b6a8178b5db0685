"""The report as one HTML file: figures inside it, English and Chinese, no network. Meant to be mailed."""

import base64
import html
import math
from collections.abc import Sequence
from pathlib import Path

from labkit.files import write_text
from stage3_agents_llmops.experiments.analysis import Analysis, Result

STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1c; }
table { border-collapse: collapse; margin: .6rem 0; } th, td { padding: .25rem .8rem .25rem 0; text-align: left; }
th { color: #666; font-weight: 500; border-bottom: 1px solid #ccc; } td.n { text-align: right; }
.advice { border-left: 6px solid #0072b2; padding: .5rem 1rem; background: #f5f7f9; margin: .6rem 0; }
.ship { border-color: #009e73; } .stop, .read { border-color: #d55e00; } img { max-width: 100%; }
.good { color: #00704f; } .bad { color: #b34700; } small { color: #666; }
#zh:checked ~ * .en, #zh:not(:checked) ~ * .zh { display: none; }
"""
WORDS = {
    "ship": "全量发布", "stop": "停止实验", "go on": "继续观察", "do not read": "数据不可信，不要解读",
    "too few units": "样本太少", "safe": "安全", "harmed": "受损", "undecided": "未定",
}  # fmt: skip
REASONS = (
    ("guardrail ", "护栏指标 "), (" is harmed", " 受损"), (" is undecided", " 尚无定论"), (" is better", " 更好"),
    (" is worse", " 更差"), ("no metric has moved for sure", "没有指标发生确定的变化"),
    ("sample ratio: ", "样本比例失衡："), (" of the units saw more than one arm", " 的单位进过多个分组"),
    (": missing more often in one arm", "：某一组缺失更多"), (" units in ", " 个单位，分组 "),
)  # fmt: skip


def both(english: str, chinese: str) -> str:
    """A piece of text in both languages; which one is seen is a matter of a checkbox."""
    return f'<span class="en">{html.escape(english)}</span><span class="zh" lang="zh">{html.escape(chinese)}</span>'


def translated(reason: str) -> str:
    """A reason of `analysis.advise` in both languages."""
    chinese = reason
    for english, word in REASONS:
        chinese = chinese.replace(english, word)
    return both(reason, chinese)


def number(value: float, percent: bool) -> str:
    """A figure as it is read: 61.4 %, or four digits."""
    if not math.isfinite(value):
        return "-"
    return f"{100 * value:.2f}&nbsp;%" if percent else f"{value:.4g}"


def render(analysis: Analysis, figures: Sequence[tuple[Path, str, str]], made: str) -> str:
    """The page.

    Args:
        figures: file, English caption, Chinese caption.
        made: when and from what, a line at the end.
    """
    ratio, exposed = analysis.ratio, analysis.exposed
    rows = [both(f"{analysis.experiment}: what the experiment says", f"{analysis.experiment}：实验结论")]
    parts = [f"<h1>{rows[0]}</h1>"]
    for arm, (advice, reasons) in analysis.advice.items():
        kind = {"ship": "ship", "stop": "stop", "do not read": "read"}.get(advice, "")
        why = "; ".join(map(translated, reasons))
        parts.append(f'<p class="advice {kind}"><b>{html.escape(arm)}: {both(advice, WORDS[advice])}</b><br>{why}</p>')
    parts.append(f"<h2>{both('Can the figures be trusted?', '数据可信吗？')}</h2><table>")
    parts.append(_row("th", both("arm", "分组"), both("units", "单位数"), both("expected", "期望")))
    for arm, count in ratio.counts.items():
        parts.append(_row("td", html.escape(arm), f"{count:,}", f"{ratio.expected.get(arm, 0):,.0f}"))
    verdict = both("ALARM", "报警") if ratio.alarm else both("fine", "正常")
    parts.append(f"</table><p>{both('sample ratio', '样本比例')}: p = {ratio.p_value:.3g}, {verdict}. ")
    verdict = both("ALARM", "报警") if exposed.alarm else both("fine", "正常")
    saw = both("units that saw two arms (left out)", "进过两个分组的单位（已剔除）")
    parts.append(f"{saw}: {len(exposed.multiple):,} ({exposed.share:.2%}), {verdict}.</p>")
    parts.append(f"<h2>{both('Metrics', '指标')}</h2><table>")
    heads = (("metric", "指标"), ("arm", "分组"), ("control", "对照"), ("treatment", "实验"), ("difference", "差"),
             ("at any time, 95 %", "任意时刻 95 %"), ("p, one look", "p（只看一次）"), ("", ""))  # fmt: skip
    parts.append(_row("th", *(both(*head) for head in heads)))
    parts += [_metric_row(result) for result in analysis.results]
    note = both("Decide by the interval that holds at any time. The p-value is for one look, at a size fixed before.",
                "请用“任意时刻”的区间做决定；p 值只在样本量事先定好、只看一次时有效。")  # fmt: skip
    parts.append(f"</table><p><small>{note}</small></p>")
    for path, english, chinese in figures:
        data = base64.b64encode(path.read_bytes()).decode()
        parts.append(f'<figure><img alt="{html.escape(english)}" src="data:image/png;base64,{data}">'
                     f"<figcaption><small>{both(english, chinese)}</small></figcaption></figure>")  # fmt: skip
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(analysis.experiment)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style><body>'
        f'<input type="checkbox" id="zh"><label for="zh"> 中文</label><main>{"".join(parts)}'
        f"<p><small>{html.escape(made)}</small></p></main></body></html>\n"
    )


def write_report(path: Path, analysis: Analysis, figures: Sequence[tuple[Path, str, str]], made: str) -> Path:
    """The page as a file, atomically."""
    return write_text(path, render(analysis, figures, made))


def _row(tag: str, *cells: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _metric_row(result: Result) -> str:
    percent, effect = result.metric.kind == "proportion", result.effect
    mark = {1: "good", -1: "bad"}.get(result.surely, "")
    interval = f"{number(result.low, percent)} … {number(result.high, percent)}"
    word = ""
    if result.guardrail:
        word = both(f"guardrail: {result.guardrail.verdict}", f"护栏：{WORDS[result.guardrail.verdict]}")
    elif result.unadjusted and result.unadjusted.variance:
        saved = 1 - effect.variance / result.unadjusted.variance
        word = both(f"CUPED: {saved:.0%} less variance", f"CUPED：方差减少 {saved:.0%}")
    return _row(
        "td", html.escape(result.metric.name), html.escape(result.arm), number(effect.control, percent),
        number(effect.treatment, percent), f'<span class="{mark}">{number(effect.difference, percent)}</span>',
        interval, f"{effect.p_value:.3g}", word,
    )  # fmt: skip
