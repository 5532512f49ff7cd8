"""The ways in which the scan's function computes a chunk of steps; see :mod:`export.scan_text`.

* :func:`one_by_one`: one step after the other. For scans with many states.
* :func:`side_by_side`: lanes of consecutive steps at the same time. An operator of ONNX Runtime
  takes a third of a microsecond even for few numbers, so scans with few states gain.
* :func:`together`: all steps at the same time, for TensorRT.

Shape suffixes: B batch, K directions, T steps padded to full chunks, G chunks, Q steps of a chunk,
V lanes, W steps of a lane, E inner channels, F channels of all directions, R rank of the step (in
lanes, of all directions), N states, M states of all directions, Z images times tokens times inner
channels.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Body:
    """Text for the slots of :data:`export.scan_text.FUNCTION`.

    Attributes:
        chunk: steps per iteration.
        places: makes ``places`` and ``rows``, what the steps read of u, and of delta, B and C.
        scan: makes ``y_steps`` from ``read_u``, ``read_delta``, ``read_B`` and ``read_C``.
        first_rows: makes ``first_T``, the row in ``y_steps`` of each step of the first path of the
            first image, and ``apart_1``, the rows from one path to the next.
        total: makes ``y_BLE``, the sum over directions, from ``y_KBLE``.
    """

    chunk: int
    places: str
    scan: str
    first_rows: str
    total: str


# Chunks come first, because Scan goes along axis 0.
_PLACES = """chunks_shape = Concat <axis = 0> (batch_1, directions_1, chunks_1, chunk_1)
  place_BKGQ = Reshape (place_BKT, chunks_shape)
  places = Transpose <perm = [2, 0, 1, 3]> (place_BKGQ)
  of_place_GBKQ = Mul (places, directions_1)
  rows = Add (of_place_GBKQ, k_K1)"""

_FIRST_ROWS = """chunk_T = Div (t_T, chunk_1)
  others_1 = Sub (paths_1, one_1)
  of_others_1 = Mul (others_1, chunk_1)
  others_T = Mul (chunk_T, of_others_1)
  first_T = Add (t_T, others_T)
  apart_1 = Identity (chunk_1)"""

# The state is (..., N, E), so that every product runs along channels.
_SCAN = """weight_KRE = Transpose <perm = [0, 2, 1]> (delta_weight)
  bias_K1E = Unsqueeze (delta_bias, one_1)
  A_KNE = Transpose <perm = [0, 2, 1]> (A)
  A_K1NE = Unsqueeze (A_KNE, one_1)
  D_K1E = Unsqueeze (D, one_1)
  state_shape = Concat <axis = 0> (batch_1, directions_1, one_1, states_1, channels_1)
  empty_BK1NE = ConstantOfShape <value = float[1] {0}> (state_shape)
  start_BK1NE = CastLike (empty_BK1NE, delta_bias)
  end_A, end_D, end_weight, end_bias, end_h, y_steps = Scan <num_scan_inputs = 4, body = chunk (
      float[?,?,?,?] A_given, float[?,?,?] D_given, float[?,?,?] weight_given,
      float[?,?,?] bias_given, float[?,?,?,?,?] before_BK1NE,
      float[?,?,?,?] u_BKQE, float[?,?,?,?] delta_BKQR,
      float[?,?,?,?] B_BKQN, float[?,?,?,?] C_BKQN
    ) => (
      float[?,?,?,?] A_passed, float[?,?,?] D_passed, float[?,?,?] weight_passed,
      float[?,?,?] bias_passed, float[?,?,?,?,?] after_BK1NE, float[?,?,?,?] y_BKQE
    ) {
      A_passed = Identity (A_given)
      D_passed = Identity (D_given)
      weight_passed = Identity (weight_given)
      bias_passed = Identity (bias_given)
      n_axis = Constant <value = int64[1] {3}> ()
      e_axis = Constant <value = int64[1] {4}> ()

      projected = MatMul (delta_BKQR, weight_given)
      raw = Add (projected, bias_given)
      #softplus#
      step_BKQ1E = Unsqueeze (step, n_axis)
      exponent_BKQNE = Mul (step_BKQ1E, A_given)
      decay_BKQNE = Exp (exponent_BKQNE)
      scaled_BKQE = Mul (step, u_BKQE)
      scaled_BKQ1E = Unsqueeze (scaled_BKQE, n_axis)
      B_BKQN1 = Unsqueeze (B_BKQN, e_axis)
      added_BKQNE = Mul (scaled_BKQ1E, B_BKQN1)
      #recurrence#
      skipped_BKQE = Mul (D_given, u_BKQE)
      y_BKQE = Add (read_BKQE, skipped_BKQE)
    }> (A_K1NE, D_K1E, weight_KRE, bias_K1E, start_BK1NE, read_u, read_delta, read_B, read_C)"""

_SOFTPLUS = "step = Softplus (raw)"

# max(x, 0) + log(1 + e), where e = exp(-|x|). The logarithm is twice artanh(e / (2 + e)). Here z is
# that quotient, which is at most 1/3, times a factor for which the last coefficient of the series
# z (c0 + c1 z^2 + c2 z^4 + z^6) is 1. It is fitted: it is right to 2e-7 of the value. exp(|x|) may
# become infinite; then z is zero. ONNX Runtime's Softplus takes four times as long, and Log alone
# half of that.
_SOFTPLUS_IN_PARTS = """half = Constant <value = float {0.5}> ()
      factor = Constant <value = float {0.42895217}> ()
      c0 = Constant <value = float {2.33126187}> ()
      c1 = Constant <value = float {1.05597092}> ()
      c2 = Constant <value = float {0.85197357}> ()
      far = Abs (raw)
      inverse_e = Exp (far)
      below = Add (inverse_e, half)
      z = Div (factor, below)
      square = Mul (z, z)
      to_second = Add (square, c2)
      second = Mul (to_second, square)
      to_first = Add (second, c1)
      first = Mul (to_first, square)
      series = Add (first, c0)
      curved = Mul (series, z)
      straight = Relu (raw)
      step = Add (straight, curved)"""


# Directions come first, because these sums are the fastest. ONNX Runtime takes 2.5 times as long
# for ReduceSum as for a product with a row of ones.
_SUM = "y_BLE = ReduceSum <keepdims = 0> (y_KBLE, zero_1)"

_SUM_AS_PRODUCT = """sum_shape = Concat <axis = 0> (directions_1, rest_1)
  y_KZ = Reshape (y_KBLE, sum_shape)
  unit_1 = ConstantOfShape <value = float[1] {1}> (directions_1)
  ones_K = CastLike (unit_1, delta_bias)
  y_Z = MatMul (ones_K, y_KZ)
  tokens_shape = Shape (u)
  y_BLE = Reshape (y_Z, tokens_shape)"""


def _names(name: str, count: int) -> str:
    return ", ".join(f"{name}_{i}" for i in range(count))


def _sizes(name: str, count: int, size: int) -> str:
    """Text of a constant for ``Split`` into parts of one size."""
    return f"{name} = Constant <value = int64[{count}] {{{', '.join([str(size)] * count)}}}> ()"


def _in_chunks(chunk: int, softplus: str, recurrence: str, total: str) -> Body:
    scan = _SCAN.replace("#softplus#", softplus).replace("#recurrence#", recurrence)
    return Body(chunk, _PLACES, scan, _FIRST_ROWS, total)


_SPLIT = """{ones}
      {decays} = Split <axis = 2> (decay_BKQNE, ones_Q)
      {additions} = Split <axis = 2> (added_BKQNE, ones_Q)
      kept_0 = Mul (decay_0, before_BK1NE)
      state_0 = Add (kept_0, added_0)"""

_STEP = """
      kept_{i} = Mul (decay_{i}, state_{last})
      state_{i} = Add (kept_{i}, added_{i})"""

_READ = """
      state_BKQNE = Concat <axis = 2> ({states})
      after_BK1NE = Identity (state_{last})
      C_BKQ1N = Unsqueeze (C_BKQN, n_axis)
      read_BKQ1E = MatMul (C_BKQ1N, state_BKQNE)
      read_BKQE = Squeeze (read_BKQ1E, n_axis)"""


def one_by_one(chunk: int) -> Body:
    """Compute the states of a chunk one after the other, everything else for the whole chunk."""
    split = _SPLIT.format(
        ones=_sizes("ones_Q", chunk, 1),
        decays=_names("decay", chunk),
        additions=_names("added", chunk),
    )
    steps = "".join(_STEP.format(i=i, last=i - 1) for i in range(1, chunk))
    read = _READ.format(states=_names("state", chunk), last=chunk - 1)
    return _in_chunks(chunk, _SOFTPLUS_IN_PARTS, split + steps + read, _SUM_AS_PRODUCT)


# On a GPU, each operator launches a kernel, whatever its size, so here operators take the whole
# chunk. The decay and the sum at step q cover the last 1, 2, 4, ... steps, doubling until they
# reach the first step of the chunk.
_DOUBLINGS = """q_axis = Constant <value = int64[1] {{2}}> ()
      first_q = Constant <value = int64[1] {{0}}> ()
      last_q = Constant <value = int64[1] {{{last}}}> ()
      nothing = Constant <value = float {{0.0}}> ()
      unchanged = Constant <value = float {{1.0}}> ()
      decay_0 = Identity (decay_BKQNE)
      sum_0 = Identity (added_BKQNE)"""

_DOUBLING = """
      pads_{i} = Constant <value = int64[2] {{{reach}, 0}}> ()
      end_{i} = Constant <value = int64[1] {{{rest}}}> ()
      early_sum_{i} = Slice (sum_{i}, first_q, end_{i}, q_axis)
      before_sum_{i} = Pad (early_sum_{i}, pads_{i}, nothing, q_axis)
      reached_{i} = Mul (decay_{i}, before_sum_{i})
      sum_{next} = Add (sum_{i}, reached_{i})
      early_decay_{i} = Slice (decay_{i}, first_q, end_{i}, q_axis)
      before_decay_{i} = Pad (early_decay_{i}, pads_{i}, unchanged, q_axis)
      decay_{next} = Mul (decay_{i}, before_decay_{i})"""

_READ_TOGETHER = """
      kept_BKQNE = Mul (decay_{doubled}, before_BK1NE)
      state_BKQNE = Add (sum_{doubled}, kept_BKQNE)
      after_BK1NE = Gather <axis = 2> (state_BKQNE, last_q)
      C_BKQN1 = Unsqueeze (C_BKQN, e_axis)
      weighted_BKQNE = Mul (C_BKQN1, state_BKQNE)
      read_BKQE = ReduceSum <keepdims = 0> (weighted_BKQNE, n_axis)"""


def together(chunk: int) -> Body:
    """Compute all states of a chunk at the same time; ``chunk`` is a power of two."""
    doublings = chunk.bit_length() - 1
    recurrence = (
        _DOUBLINGS.format(last=chunk - 1)
        + "".join(
            _DOUBLING.format(i=i, next=i + 1, reach=2**i, rest=chunk - 2**i)
            for i in range(doublings)
        )
        + _READ_TOGETHER.format(doubled=doublings)
    )
    return _in_chunks(chunk, _SOFTPLUS, recurrence, _SUM)


# Steps of one turn, one of each lane, lie together, and so do the channels of all directions.
_LANE_PLACES = """lanes_1 = Constant <value = int64[1] {{{lanes}}}> ()
  walk_1 = Constant <value = int64[1] {{{walk}}}> ()
  lanes_shape = Concat <axis = 0> (batch_1, directions_1, chunks_1, lanes_1, walk_1)
  place_BKGVW = Reshape (place_BKT, lanes_shape)
  place_GWVBK = Transpose <perm = [2, 4, 3, 0, 1]> (place_BKGVW)
  turns_shape = Concat <axis = 0> (chunks_1, chunk_1, batch_1, directions_1)
  places = Reshape (place_GWVBK, turns_shape)
  of_place_GQBK = Mul (places, directions_1)
  rows = Add (of_place_GQBK, k_K)"""

_LANE_FIRST_ROWS = """turns_first = Concat <axis = 0> (rest_1, walk_1, lanes_1)
  t_GWV = Reshape (t_T, turns_first)
  t_GVW = Transpose <perm = [0, 2, 1]> (t_GWV)
  turned_T = Reshape (t_GVW, rest_1)
  first_T = Mul (turned_T, paths_1)
  apart_1 = Identity (one_1)"""

# One product of matrices takes all directions, if the matrix has a block for each of them.
_LANE_SCAN = """all_channels_1 = Mul (directions_1, channels_1)
  all_ranks_1 = Mul (directions_1, rank_1)
  all_states_1 = Mul (directions_1, states_1)
  F_shape = Concat <axis = 0> (chunks_1, chunk_1, batch_1, all_channels_1)
  u_GQBF = Reshape (read_u, F_shape)
  R_shape = Concat <axis = 0> (chunks_1, chunk_1, batch_1, all_ranks_1)
  delta_GQBR = Reshape (read_delta, R_shape)
  M_shape = Concat <axis = 0> (chunks_1, chunk_1, batch_1, all_states_1)
  B_GQBM = Reshape (read_B, M_shape)
  C_GQBM = Reshape (read_C, M_shape)

  states = Squeeze (states_1)
  n_N = Range (zero, states, one)
  n_N1 = Unsqueeze (n_N, one_1)
  same_NN = Equal (n_N1, n_N)
  unit_NN = CastLike (same_NN, delta_bias)
  same_KK = Equal (k_K1, k_K)
  unit_KK = CastLike (same_KK, delta_bias)
  axes_13 = Constant <value = int64[2] {1, 3}> ()
  unit_K1K1 = Unsqueeze (unit_KK, axes_13)
  weight_KRE = Transpose <perm = [0, 2, 1]> (delta_weight)
  axes_2 = Constant <value = int64[1] {2}> ()
  weight_KR1E = Unsqueeze (weight_KRE, axes_2)
  weight_KRKE = Mul (weight_KR1E, unit_K1K1)
  weight_shape = Concat <axis = 0> (all_ranks_1, all_channels_1)
  weight_RF = Reshape (weight_KRKE, weight_shape)
  row_shape = Concat <axis = 0> (one_1, all_channels_1)
  bias_1F = Reshape (delta_bias, row_shape)
  D_1F = Reshape (D, row_shape)
  A_NKE = Transpose <perm = [2, 0, 1]> (A)
  A_shape = Concat <axis = 0> (states_1, all_channels_1)
  A_NF = Reshape (A_NKE, A_shape)

  axes_124 = Constant <value = int64[3] {1, 2, 4}> ()
  unit_K11K1 = Unsqueeze (unit_KK, axes_124)
  axes_034 = Constant <value = int64[3] {0, 3, 4}> ()
  unit_1NN11 = Unsqueeze (unit_NN, axes_034)
  axes_012 = Constant <value = int64[3] {0, 1, 2}> ()
  unit_111KK = Unsqueeze (unit_KK, axes_012)
  unit_KNNK1 = Mul (unit_K11K1, unit_1NN11)
  unit_KNNKK = Mul (unit_KNNK1, unit_111KK)
  blocks_shape = Concat <axis = 0> (all_states_1, rest_1)
  blocks_of_B = Reshape (unit_KNNKK, blocks_shape)
  unit_KNKNK = Transpose <perm = [0, 1, 4, 2, 3]> (unit_KNNKK)
  blocks_of_C = Reshape (unit_KNKNK, blocks_shape)

  state_shape = Concat <axis = 0> (one_1, batch_1, all_states_1, channels_1)
  empty_1BME = ConstantOfShape <value = float[1] {0}> (state_shape)
  start_1BME = CastLike (empty_1BME, delta_bias)
  end_A, end_D, end_weight, end_bias, end_B, end_C, end_h, y_steps = Scan <
    num_scan_inputs = 4, body = chunk (
      float[?,?] A_given, float[?,?] D_given, float[?,?] weight_given, float[?,?] bias_given,
      float[?,?] B_blocks_given, float[?,?] C_blocks_given, float[?,?,?,?] before_1BME,
      float[?,?,?] u_QBF, float[?,?,?] delta_QBR, float[?,?,?] B_QBM, float[?,?,?] C_QBM
    ) => (
      float[?,?] A_passed, float[?,?] D_passed, float[?,?] weight_passed, float[?,?] bias_passed,
      float[?,?] B_blocks_passed, float[?,?] C_blocks_passed, float[?,?,?,?] after_1BME,
      float[?,?,?] y_QBF
    ) {
      A_passed = Identity (A_given)
      D_passed = Identity (D_given)
      weight_passed = Identity (weight_given)
      bias_passed = Identity (bias_given)
      B_blocks_passed = Identity (B_blocks_given)
      C_blocks_passed = Identity (C_blocks_given)
      same_2 = Constant <value = int64[2] {0, 0}> ()
      left_1 = Constant <value = int64[1] {-1}> ()
      n_axis = Constant <value = int64[1] {2}> ()
      M_1 = Shape <start = 2, end = 3> (before_1BME)
      E_1 = Shape <start = 3, end = 4> (before_1BME)
      with_E = Concat <axis = 0> (same_2, left_1, E_1)
      with_M_first = Concat <axis = 0> (same_2, M_1, left_1)
      with_M_last = Concat <axis = 0> (same_2, left_1, M_1)
      with_F = Concat <axis = 0> (same_2, left_1)

      projected = MatMul (delta_QBR, weight_given)
      raw = Add (projected, bias_given)
      #softplus#
      step_QB1F = Unsqueeze (step, n_axis)
      scaled_QBF = Mul (step, u_QBF)
      scaled_QBKE = Reshape (scaled_QBF, with_E)
      B_blocks = MatMul (B_QBM, B_blocks_given)
      B_QBMK = Reshape (B_blocks, with_M_first)
      C_blocks = MatMul (C_QBM, C_blocks_given)
      C_QBKM = Reshape (C_blocks, with_M_last)
      #recurrence#
      read_QBF = Reshape (read_QBKE, with_F)
      skipped_QBF = Mul (D_given, u_QBF)
      y_QBF = Add (read_QBF, skipped_QBF)
    }> (A_NF, D_1F, weight_RF, bias_1F, blocks_of_B, blocks_of_C, start_1BME,
        u_GQBF, delta_GQBR, B_GQBM, C_GQBM)"""

_TURNS = """{turns}
      {steps} = Split <axis = 0> (step_QB1F, turns)
      {scaled} = Split <axis = 0> (scaled_QBKE, turns)
      {B} = Split <axis = 0> (B_QBMK, turns)
      {C} = Split <axis = 0> (C_QBKM, turns)"""

_TURN = """
      exponent_{i} = Mul (step_{i}, A_given)
      by_state_{i} = Exp (exponent_{i})
      decay_{i} = Reshape (by_state_{i}, with_E)
      added_{i} = MatMul (B_{i}, scaled_{i})"""

# From states of zero at the start of each lane.
_FROM_ZERO = """
      kept_of_zero_{i} = Mul (decay_{i}, {last})
      from_zero_{i} = Add (kept_of_zero_{i}, added_{i})"""

_LANE_ENDS = """
      whole_step = Sum ({steps})
      whole_exponent = Mul (whole_step, A_given)
      whole_by_state = Exp (whole_exponent)
      whole_decay = Reshape (whole_by_state, with_E)
      {ones}
      {decays} = Split <axis = 0> (whole_decay, ones_V)
      {ends} = Split <axis = 0> (from_zero_{last}, ones_V)"""

_LANE = """
      kept_of_lane_{v} = Mul (lane_decay_{v}, {start})
      {end} = Add (kept_of_lane_{v}, lane_end_{v})"""

_STARTS = """
      starts = Concat <axis = 0> ({starts})"""

_FROM_STARTS = """
      kept_{i} = Mul (decay_{i}, {last})
      state_{i} = Add (kept_{i}, added_{i})
      read_{i} = MatMul (C_{i}, state_{i})"""


def side_by_side(lanes: int, walk: int) -> Body:
    """Compute ``lanes`` parts of a chunk at the same time; each has ``walk`` consecutive steps.

    The lanes start from zero first. What that gives for the last step of each lane, and the decay
    over each lane, give the states at the starts of all lanes. Then the lanes start from these.
    """
    starts = ["before_1BME", *(f"start_{v}" for v in range(1, lanes)), "after_1BME"]
    parts = [
        _TURNS.format(
            turns=_sizes("turns", walk, lanes),
            steps=_names("step", walk),
            scaled=_names("scaled", walk),
            B=_names("B", walk),
            C=_names("C", walk),
        ),
        *(_TURN.format(i=i) for i in range(walk)),
        *(
            _FROM_ZERO.format(i=i, last=f"from_zero_{i - 1}" if i > 1 else "added_0")
            for i in range(1, walk)
        ),
        _LANE_ENDS.format(
            steps=_names("step", walk),
            ones=_sizes("ones_V", lanes, 1),
            decays=_names("lane_decay", lanes),
            ends=_names("lane_end", lanes),
            last=walk - 1,
        ),
        *(_LANE.format(v=v, start=starts[v], end=starts[v + 1]) for v in range(lanes)),
        _STARTS.format(starts=", ".join(starts[:-1])),
        *(_FROM_STARTS.format(i=i, last=f"state_{i - 1}" if i else "starts") for i in range(walk)),
        f"\n      read_QBKE = Concat <axis = 0> ({_names('read', walk)})",
    ]
    scan = _LANE_SCAN.replace("#softplus#", _SOFTPLUS_IN_PARTS)
    return Body(
        lanes * walk,
        _LANE_PLACES.format(lanes=lanes, walk=walk),
        scan.replace("#recurrence#", "".join(parts)),
        _LANE_FIRST_ROWS,
        _SUM_AS_PRODUCT,
    )
