// Every word of the page, in both languages.
export const WORDS = {
  en: {
    title: "Customer service: monitoring", other: "中文", window: "Last", minutes2: "2 minutes", minutes10: "10 minutes",
    hour: "hour", day: "day", alerts: "Alerts", lines: "Each release, over time", figures: "Each release, over the whole time",
    drift: "Drift of the questions", queue: "Queue", live: "live", lost: "the connection is lost, trying again …",
    connecting: "connecting …", updated: "as of", quiet: "No alert fires.", nothing: "No run has ended in this time.",
    firing: "firing", pending: "pending", resolved: "resolved", since: "since", until: "until", of: "threshold",
    tooFew: "too few samples", all: "all releases", waiting: "waiting",
    tooFewNote: "Small: the number of samples. A percentile is shown when at least ten samples lie beyond it: 20 for P50, 200 for P95, 1,000 for P99.",
    driftNote: "Population stability index (PSI) of the newest 200 questions against what is normal. An alarm is above 0.25 with a chi-square p below 0.001.",
    noDrift: "Not enough runs to compare yet.", shifted: "shifted", stable: "no alarm",
    what: { intent: "intents", query_chars: "length of the questions", retrieval_score: "retrieval score" },
    charts: {
      runs: "Runs a second", p50: "Median seconds of an answer", error_rate: "Runs with an error",
      tokens: "Tokens a run, in and out", retrieval_accuracy: "Probes that cite the right article", satisfaction: "Thumbs up",
    },
    rows: {
      arms: "arm", runs: "runs", error_rate: "errors", p50: "seconds, P50", p95: "seconds, P95", p99: "seconds, P99",
      first_token_p95: "first token, P95", input_tokens: "tokens in", output_tokens: "tokens out", cost: "cost",
      retrieval_accuracy: "retrieval accuracy (probes)", wrong: "wrong answers (probes)",
      citation_clicks: "citations opened", satisfaction: "thumbs up", resolved: "resolved",
      handed_to_human: "handed to a person", guardrails: "guardrail stepped in", unsafe: "unsafe runs",
    },
  },
  zh: {
    title: "智能客服：运行监控", other: "English", window: "最近", minutes2: "2 分钟", minutes10: "10 分钟",
    hour: "1 小时", day: "1 天", alerts: "告警", lines: "各版本随时间的变化", figures: "各版本在整个时段内的指标",
    drift: "用户问题的漂移", queue: "排队", live: "实时", lost: "连接已断开，正在重试……",
    connecting: "正在连接……", updated: "更新于", quiet: "当前没有告警。", nothing: "这段时间内没有完成的请求。",
    firing: "告警中", pending: "待确认", resolved: "已恢复", since: "开始", until: "结束", of: "阈值",
    tooFew: "样本不足", all: "全部版本", waiting: "个请求在等待",
    tooFewNote: "小字为样本数。分位点之外至少有 10 个样本才显示：P50 需 20 个，P95 需 200 个，P99 需 1000 个。",
    driftNote: "最近 200 个问题与基准分布之间的群体稳定性指标（PSI）。PSI 超过 0.25 且卡方检验 p 值低于 0.001 才告警。",
    noDrift: "数据量还不足以比较。", shifted: "已漂移", stable: "正常",
    what: { intent: "意图", query_chars: "问题长度", retrieval_score: "检索得分" },
    charts: {
      runs: "每秒请求数", p50: "回答耗时中位数（秒）", error_rate: "出错的请求",
      tokens: "每次请求的 token 数（输入加输出）", retrieval_accuracy: "探测问题引用正确文章的比例", satisfaction: "好评率",
    },
    rows: {
      arms: "流量分组", runs: "请求数", error_rate: "错误率", p50: "耗时 P50（秒）", p95: "耗时 P95（秒）", p99: "耗时 P99（秒）",
      first_token_p95: "首字延迟 P95（秒）", input_tokens: "输入 token", output_tokens: "输出 token", cost: "成本",
      retrieval_accuracy: "检索准确率（探测）", wrong: "回答错误（探测）",
      citation_clicks: "引用被打开", satisfaction: "好评率", resolved: "问题已解决",
      handed_to_human: "转人工", guardrails: "触发护栏", unsafe: "不安全的请求",
    },
  },
};
