"""The names of the field, and what each is here: data of `make_algorithms`."""

PART = 'a part'
LATER = 'later'
OMITTED = 'left out'

EXPLANATION = (
  'A link is a page of `experiments/`; *untested* says that it records no',
  'result. *No page*: the composition is all. *A part*: a term, weight or',
  'shaping that recipes add, not a recipe. *Later*: not written yet. *Left',
  'out*: the composition says what is missing.',
  '',
  'In compositions: A advantages, p log-probabilities, h `implicit_rewards`, S',
  '`sum_at`, M `mean_at`, Δ `margins`, R returns; TW `token_weights`, SW',
  '`sequence_weights`, FW `fixed_length_weights`, EW `episode_weights`.',
  '',
)

# By heading: name, source, page or state, composition.
NAMES: dict[str, tuple[tuple[str, str, str, str], ...]] = {
  'Policy gradients with a critic': (
    (
      'PPO',
      '1707.06347',
      'ppo',
      '`gae`, `whiten`; `clipped_surrogate` of `token_ratio`, `value_loss`; TW',
    ),
    (
      'PPO, dual clip',
      '1912.09729',
      PART,
      '`dual_clipped_surrogate`; two-sided clip (TRL) is the same function',
    ),
    (
      'PPO-max',
      '2307.04964',
      'ppo_max',
      '`scale_rewards`, `penalised_rewards`, `gae`, `whiten`, clipped values',
    ),
    (
      'Turn-PPO',
      '2512.17008',
      'turn_ppo',
      '`turn_sum` of rewards, `first_of_turn` of values, `gae` over turns',
    ),
    (
      'StepPO',
      '2604.18401',
      'step_ppo',
      "Turn-PPO's credit, standardised over turns; `sequence_ratio` of "
      '`split_segments` by turn',
    ),
    (
      'Values over bins: two-hot, HL-Gauss',
      '1911.08265, 2403.03950',
      PART,
      '`bin_loss` of `two_hot` or `smoothed`; value_form of recipes with a '
      'critic',
    ),
    (
      'Values by quantiles',
      '1710.10044',
      PART,
      '`quantile_loss`; value_form=quantile of recipes with a critic',
    ),
    (
      'RAGEN, VAGEN: bi-level estimates',
      '2510.16907',
      'bilevel',
      '`bilevel_gae`',
    ),
    (
      'HiPER',
      '2602.16165',
      'hiper',
      '`hierarchical_gae`, `levels_to_tokens`; a value head a level',
    ),
    (
      'VAPO',
      '2504.05118',
      'vapo',
      '`gae` with `length_adaptive_lambda`, targets with λ = 1; likelihood of '
      'successes',
    ),
    (
      'VC-PPO',
      '2503.01491',
      'vc_ppo',
      '`gae` with λ of its own for actor and critic',
    ),
    (
      'VinePPO',
      '2410.01679',
      'vineppo',
      '`gae(lambda_=0)` with values from rollouts that fork at every turn',
    ),
    ('V-trace', '1802.01561', 'vtrace', '`vtrace`, then -A p without a ratio'),
    ('Monte-Carlo returns', 'Sutton 1988', PART, '`discounted_returns`'),
    ('TD(λ), λ-returns', 'Sutton 1988', PART, '`lambda_returns`'),
    ('GAE', '1506.02438', PART, '`gae`, over tokens or over turns'),
    ('Value loss, clipped', '1707.06347', PART, '`value_loss`'),
    (
      'AWR',
      '1910.00177',
      'awr',
      '`weighted_logprob` of `exponential_weight`, `value_loss`; TW',
    ),
  ),
  'Policy gradients against a baseline or a group': (
    ('REINFORCE', 'Williams 1992', 'reinforce', "the batch's mean; TW"),
    ('RLOO', '2402.14740', 'rloo', '`leave_one_out`, `weighted_logprob`'),
    (
      'RLOO, sequence loss',
      'TRL',
      '',
      '`leave_one_out`, `clipped_surrogate` of `product_ratio`; SW',
    ),
    (
      'REINFORCE++',
      '2501.03262',
      'reinforce_pp',
      '`whiten` of `discounted_returns` of `penalised_rewards`',
    ),
    (
      'REINFORCE++ baseline',
      '2501.03262',
      'reinforce_pp',
      '`whiten` of `centre` at tokens',
    ),
    (
      'ReMax',
      '2310.10505',
      'remax',
      '`discounted_returns` less the return of a greedy episode of the task',
    ),
    ('OPO', '2505.23585', 'opo', '`weighted_centre` by lengths'),
    ('GPG', '2504.02546', 'gpg', '`divide_by_share` of `centre`; TW'),
    (
      'Optimal token baseline',
      'verl',
      'optimal_baseline',
      '`weighted_centre` by `score_norms` in the cells of `turn_groups`',
    ),
    ('GRPO', '2402.03300', 'grpo', '`standardise`; `clipped_surrogate`; SW'),
    ('Dr. GRPO', '2503.20783', 'dr_grpo', '`centre`; `clipped_surrogate`; FW'),
    (
      'DAPO',
      '2503.14476',
      'dapo',
      'GRPO with clip-higher, TW, `recipe.keep_mixed`, `overlong_penalty`',
    ),
    (
      'GDPO',
      '2601.05242',
      'gdpo',
      '`whiten` of `combine_components` of several rewards',
    ),
    (
      'Pass@k training',
      '2508.10751',
      'pass_at_k',
      '`pass_at_k`, or `divide_by_spread` of `best_margin`',
    ),
    ('EDGE-GRPO', '2507.21848', 'edge_grpo', '`weigh_by_confidence`'),
    ('FSPO', '2505.24630', 'fspo', '`force_sign` of `standardise` at tokens'),
  ),
  'Credit of turns, branches and roles': (
    (
      'GiGPO',
      '2505.10978',
      'gigpo',
      '`standardise` plus w `state_relative`; `merge_similar` for like states',
    ),
    (
      'MT-GRPO',
      'SiliangZeng/Multi-Turn-RL-Agent',
      'mt_grpo',
      '`discounted_returns` of `turn_relative`, any number of turns',
    ),
    (
      'By group and number of the turn',
      'none',
      'turn_grpo',
      '`turn_relative`',
    ),
    ('By role', 'none', 'per_role', '`normalise_by_role`, `levels_to_tokens`'),
    (
      'Tree-GRPO',
      '2509.21240',
      'tree_grpo',
      '`standardise` by group plus by tree',
    ),
    (
      'TreePO',
      '2508.17445',
      'treepo',
      '`whiten` of `subtree_relative`',
    ),
    (
      'ARPO',
      '2507.19849',
      'arpo',
      'hard: `node_mean` of `standardise`; soft: GRPO',
    ),
    (
      'Agent-Omit',
      '2602.04284',
      'agent_omit',
      '`omission_rewards` of thoughts left out, and `standardise` of partial '
      'episodes, a group of their own; what observations omitted by command '
      'save is not counted',
    ),
    (
      'MemAgent',
      '2507.02259',
      'memagent',
      '`centre`, to every segment; `episode_weights`',
    ),
    ('MEM1', '2506.15841', 'mem1', '`gae` over all segments of an episode'),
    (
      'SUPO',
      '2510.06727',
      'supo',
      '`standardise`, to every segment and summary; 0 where a limit ended it',
    ),
    (
      'IGPO, information gain',
      '2510.14967',
      'igpo',
      'gains as `information_gain` has them, taken on the host from probes '
      'that ask for the answer; '
      'DR-Venus takes logarithms and standardises apart',
    ),
    (
      'SWEET-RL',
      '2503.15478',
      'sweet_rl',
      '`turn_advantages` of a critic that sees the solution, then DPO of the '
      'turns that began in one of the `situations`',
    ),
  ),
  'Ratios, clips and weights': (
    ('GSPO, GSPO-token', '2507.18071', 'gspo', '`sequence_ratio`; SW'),
    (
      'Segment-ratio PPO',
      '2604.18401',
      'segment_ppo',
      '`sequence_ratio` of `split_segments`; SW of these',
    ),
    ('GMPO', '2507.20673', 'gmpo', '`clipped_sequence_ratio`; SW'),
    ('SAPO', '2511.20347', 'sapo', '`soft_gated_surrogate`; SW'),
    (
      'CISPO',
      '2506.13585',
      'cispo',
      '`weighted_logprob` of A `truncated_weight`; TW',
    ),
    (
      'Clip-Cov',
      '2505.22617',
      'clip_cov',
      '`select_largest` of noise where `advantage_covariance` is in a band',
    ),
    (
      'KL-Cov',
      '2505.22617',
      'kl_cov',
      '`kl_absolute` where `advantage_covariance` is largest',
    ),
    (
      'DPPO-TV, DPPO-KL',
      '2602.04879',
      'dppo',
      '`trust_by_variation` or `trust_by_divergence`',
    ),
    (
      'Kimi k1.5, DRO',
      '2501.12599',
      'kimi',
      '`weighted_logprob` plus τ `kl_k2` to the sampler',
    ),
    (
      'TOPR',
      '2503.14286',
      'topr',
      '`truncated_weight(cap=1)` on bad episodes alone',
    ),
    ('VESPO', '2602.10693', 'vespo', '`gamma_weight` of `product_ratio`'),
    (
      'Decoupled PPO, AReaL',
      '2505.24298',
      'async_grpo',
      '`token_ratio` to the proximal policy, times a weight of it to the '
      'sampler',
    ),
    (
      'TIS, IcePop, MIS',
      'several',
      'async_grpo',
      '`truncated_weight` or `masked_weight` of a ratio of any level',
    ),
    (
      'Normalised weights',
      'verl',
      PART,
      '`normalised_weight`, where a recipe prepares',
    ),
    ('Rejection masks', 'verl', PART, '`accept` of a ratio or of `kl_k3`'),
    (
      'Off-policy sequence mask',
      'DeepSeek-V3.2',
      PART,
      '`accept` of `sequence_ratio`, or A >= 0',
    ),
    (
      'KL: k1, abs, k2, k3, k1+, k3+',
      'Schulman 2020',
      PART,
      '`kl_k1`, `kl_absolute`, `kl_k2`, `kl_k3`, `straight_through`',
    ),
    ('KL in the reward', '2203.02155', PART, '`penalised_rewards`'),
    (
      'Adaptive KL, adaptive entropy',
      '1909.08593',
      PART,
      '`adapt_kl_coefficient`, `adapt_entropy_coefficient`; state from step to '
      'step is carried',
    ),
    (
      'Entropy bonus, top-entropy gate',
      'several',
      PART,
      '`recipe.objective`; `select_largest` of the entropy',
    ),
    (
      'Dynamic sampling, overlong shaping',
      '2503.14476',
      PART,
      '`is_informative`, `recipe.keep_mixed`; `overlong_penalty`',
    ),
    (
      'Aggregations',
      'several',
      PART,
      'token mean TW; sequence mean of means SW; over a constant length FW; '
      'over episodes EW',
    ),
  ),
  'Imitation and demonstrations': (
    ('SFT', '2203.02155', 'supervised', '`weighted_logprob` of 1; TW'),
    (
      'RFT, rejection sampling, best of n',
      '2308.01825',
      'rft',
      'SFT of own episodes that reach a threshold; `best_of_group`',
    ),
    ('STaR', '2203.14465', 'rft', '`first_of_group(limit=1)`; no hints'),
    ('ReST, ReST-EM', '2312.06585', 'rft', '`first_of_group(limit=10)`'),
    (
      'SteerLM',
      '2310.05344',
      'supervised',
      'SFT with the attributes in the prompt of the tasks',
    ),
    (
      'LUFFY',
      '2504.14945',
      'luffy',
      '`shaped_probability` on demonstrated tokens, `clipped_surrogate` on own',
    ),
    (
      'RL-PLUS',
      '2508.00222',
      'rl_plus',
      '`mixture_ratio` and `explore_unlikely` on demonstrated tokens; '
      'standardised by the own ones',
    ),
    (
      'CHORD',
      '2508.11408',
      'chord',
      'terms of GRPO and SFT; form=phi: `uncertainty_weight`',
    ),
  ),
  'Preferences': (
    ('DPO', '2305.18290', 'dpo', '`logistic` of Δ of S(h)'),
    ('cDPO', 'Mitchell 2023', 'dpo', 'form=cdpo: `logistic(flip_rate)`'),
    ('Robust DPO', '2403.00409', 'dpo', 'form=robust: `robust_logistic`'),
    ('Hinge, of RSO', '2309.06657', 'dpo', 'form=hinge: `hinge`'),
    ('IPO', '2310.12036', 'dpo', 'form=ipo: `squared` of Δ of M(h)'),
    (
      'SPPO, hard',
      '2405.00675',
      'dpo',
      'form=sppo_hard: `win_rate_regression` with win rates 1 and 0',
    ),
    (
      'SPPO',
      '2405.00675',
      'sppo',
      '`win_rate_regression` of S(h), `win_rates`; reference: the sampler',
    ),
    ('ETO', '2403.02502', 'dpo', 'form=dpo from an imitated policy'),
    (
      'Step-DPO',
      '2406.18629',
      'step_dpo',
      'DPO of the turn in which a pair parts, `diverged`',
    ),
    ('KTO', '2402.01306', 'kto', '`prospect` of S(h), `kl_baseline`'),
    (
      'β-DPO',
      '2407.08639',
      'beta_dpo',
      '`logistic` at `dynamic_beta` of the pairs of `select_pairs`; '
      '`update_moments`, carried from step to step',
    ),
    (
      'RSO',
      '2309.06657',
      'rso',
      '`acceptance` keeps episodes; then DPO or form=hinge',
    ),
    ('SimPO', '2405.14734', 'simpo', '`logistic(offset)` of Δ of M(p)'),
    (
      'CPO',
      '2401.08417',
      'simpo',
      'form=cpo: `logistic` of Δ of S(p), less M(p) of the chosen',
    ),
    (
      'ORPO',
      '2403.07691',
      'simpo',
      'form=orpo: `logistic` of Δ of `log_odds`, less M(p) of the chosen',
    ),
    (
      'SLiC-HF',
      '2305.10425',
      'simpo',
      'form=slic: `hinge` of Δ of S(p), less S(p) of the chosen',
    ),
    (
      'RRHF',
      '2304.05302',
      'ranking',
      '`ranking_hinge` of M(p), less S(p) of `best_of`',
    ),
    (
      'PRO',
      '2306.17492',
      'ranking',
      'form=pro: `tempered_ranking` of M(p), less S(p) of `best_of`',
    ),
    (
      'DPO over lists',
      '2305.18290',
      'ranking',
      'form=plackett_luce: `plackett_luce` of β S(h)',
    ),
    (
      'SPIN',
      '2401.01335',
      'spin',
      'DPO of a demonstration against an own sample',
    ),
    (
      'V-DPO, vision DPO',
      '2411.02712',
      'vision_dpo',
      'DPO with `guided_logprobs`, away from what blank images say',
    ),
    (
      'Bradley-Terry reward model',
      '2203.02155',
      'reward_model',
      '`bradley_terry` of the reward after the last action token',
    ),
    (
      'Process reward model',
      '2305.20050',
      'reward_model',
      '`step_target_loss` at the ends of turns, `step_scores`',
    ),
  ),
  'Distillation': (
    (
      'On-policy distillation',
      'thinkingmachines.ai, 2025',
      'distill',
      '`teacher_advantages`, `weighted_logprob`; TW',
    ),
    (
      'Reverse and forward KL',
      '2306.08543, 1503.02531',
      'gkd',
      '`reverse_kl`, `forward_kl`, over chunks of logits',
    ),
    ('GKD', '2306.13649', 'gkd', '`jensen_shannon`; as above'),
    (
      'Truncated vocabularies',
      'verl, OpenClaw-RL',
      'gkd',
      '`top_tokens`, `truncated_forward_kl`, `tailed_reverse_kl`; as above',
    ),
    (
      'Hindsight-guided distillation',
      'OpenClaw-RL',
      'hindsight',
      'outcome plus `teacher_advantages`, of probes with a hint',
    ),
  ),
  'Search': (
    ('UCB1, UCT, PUCT', 'several', LATER, 'rules of selection'),
    ('RAP', '2305.14992', LATER, 'search in a world model'),
    ('LATS', '2310.04406', LATER, 'search in the environment'),
    (
      'From search to training',
      'none',
      LATER,
      "values of nodes as VinePPO's, siblings as Step-DPO's pairs, best paths "
      "as RFT's episodes",
    ),
  ),
}

CLASHES: tuple[tuple[str, str, str], ...] = (
  (
    'DPPO',
    'divergence PPO (2602.04879); diffusion policy policy optimisation, of '
    'robots (2409.00588); distributed PPO (2017); direct preference-based '
    'policy optimisation (2023)',
    'divergence PPO: page dppo',
  ),
  (
    'OPO',
    'on-policy RL with the optimal reward baseline (2505.23585); the letters '
    'also name other optimisers of preferences',
    'the optimal baseline: page opo',
  ),
  (
    'rDPO',
    'robust DPO for flipped labels (2403.00409); elsewhere also refined or '
    'regularised DPO',
    'robust DPO: page dpo, form=robust',
  ),
  (
    'SRPO',
    'two-staged history resampling (2504.14286); several others, of '
    'self-reflection and of semi-online training',
    'none yet; the history resampling when it comes',
  ),
  (
    'SPIN',
    'self-play fine-tuning against demonstrations (2401.01335); the recipe of '
    'that name in verl-recipe is DPO of two samples ranked by reward',
    'the first: page spin; the second is page dpo with group_size=2',
  ),
  (
    'ARPO',
    'agentic RL with branching at uncertain steps (2507.19849); other papers '
    'share the letters',
    'the branching one',
  ),
  (
    'FSPO',
    'step-wise factuality (2505.24630); other papers share the letters',
    'factuality',
  ),
  (
    'LCPO',
    'length controlled preference optimisation (2508.10164); length controlled '
    'policy optimisation, L1 (2503.04697)',
    'none yet',
  ),
  (
    'ASPO',
    'advantage shaping for tools (2508.19201); asymmetric importance sampling '
    '(2025)',
    'none yet',
  ),
  (
    'PAPO',
    'perception-aware policy optimisation (2507.06448); other expansions exist',
    'none yet',
  ),
  (
    'DRO',
    'DRO: direct reward optimisation (Kimi k1.5 has its form); also '
    'distributionally robust optimisation',
    'the squared form: page kimi',
  ),
)
