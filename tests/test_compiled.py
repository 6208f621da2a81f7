"""What benchmarks read of compiled programs: operations, how often they run, what they write."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks.compiled import Exchange, exchanges, operations


def _of(function, *shapes):
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return operations(jax.jit(function).lower(*given).compile().as_text())


def test_loops_are_multiplied_out():
    found = _of(lambda x: jax.lax.fori_loop(0, 7, lambda _, y: y @ y, x), (40, 40))
    products = [o for o in found if "dot_general" in o.source]
    assert sum(o.times for o in products if o.bytes >= 40 * 40 * 4) == 7


def test_what_only_puts_values_in_another_order():
    def moved(function):
        return sum(o.bytes for o in _of(function, (24, 56, 3)) if o.moves)

    assert moved(lambda x: x.transpose(1, 2, 0)) == 24 * 56 * 3 * 4
    assert moved(lambda x: jnp.sin(x.transpose(1, 2, 0))) == 0


def test_what_fusions_read_and_where_their_parts_come_from():
    def normalised(x):
        with jax.named_scope("scaled"):
            return jnp.exp(x * 2).astype(jnp.bfloat16)

    (fusion,) = [o for o in _of(normalised, (8, 9)) if o.parts]
    assert any("scaled" in part for part in fusion.parts)
    assert (fusion.read, fusion.bytes, fusion.wide) == (8 * 9 * 4, 8 * 9 * 2, 0)


def test_arrays_of_all_kinds():
    text = """
HloModule m
%body (p: (bf16[2,3])) -> (bf16[2,3]) {
  %p = (bf16[2,3]{1,0}) parameter(0)
  %c = (bf16[2,3]{1,0}, u8[0]{0}) custom-call(%p), dim_labels=b01f_o01i->b01f, custom_call_target="a$b", metadata={op_name="there"}
}
ENTRY %main (p: f32[]) -> f32[] {
  %s = pred[5]{0} compare(%p, %p)
  %w = (bf16[2,3]{1,0}) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"4"}}
  ROOT %d = f8e4m3fn[7]{0} all-reduce-done(%s)
}
"""  # noqa: E501
    compare, call = operations(text)
    assert (compare.kind, compare.bytes, compare.times) == ("compare", 5, 1)
    assert (call.kind, call.bytes, call.times, call.source) == ("a$b", 12, 4, "there")
    assert call.layout == "b01f_o01i->b01f"


def test_loops_that_send_a_factor_around():
    """A TPU's loop over the parts of a factor: as it counts by two, up to four, two sends."""
    text = """
HloModule m
%more (p: (bf16[8], u32[])) -> pred[] {
  %limit = u32[]{:T(128)} constant(4), metadata={op_name="a"}
  %p = (bf16[8]{0}, /*index=1*/u32[]) parameter(0)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT, metadata={op_name="a"}
}
%part (p: (bf16[8], u32[])) -> (bf16[8], u32[]) {
  %two = u32[]{:T(128)} constant(2)
  %p = (bf16[8]{0}, u32[]) parameter(0)
  %x = bf16[8]{0} get-tuple-element(%p), index=0
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  %q = (bf16[8]{0}, bf16[8]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=1, source_target_pairs={{0,1}}
  %y = bf16[8]{0} multiply(%x, %x)
  %d = bf16[8]{0} collective-permute-done(%q)
  %next = u32[]{:T(128)} add(%i, %two), metadata={op_name="a"}
  ROOT %t = (bf16[8]{0}, u32[]) tuple(%d, %next)
}
ENTRY %main (p: (bf16[8], u32[])) -> (bf16[8], u32[]) {
  ROOT %w = (bf16[8]{0}, u32[]) while(%p), condition=%more, body=%part
}
"""  # noqa: E501
    assert exchanges(text, 4) == [Exchange("collective-permute", 2 * 8 * 2, beside=True)]
    with pytest.raises(ValueError, match="how often"):
        exchanges(text.replace("direction=LT", "direction=NE"), 4)


def test_what_chips_send_each_other():
    text = """
HloModule m
%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %z = f32[] add(%x, %y)
}
%all-reduce-scatter.1 (i: bf16[64]) -> bf16[16] {
  %r = bf16[64]{0} all-reduce(%i), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %s = bf16[16]{0} dynamic-slice(%r)
}
%async_fusion (i: bf16[16]) -> bf16[64] {
  ROOT %g = bf16[64]{0} all-gather(%i), channel_id=2, replica_groups=mesh['x'=2,'y'=4] {'y'}, dimensions={0}
}
%body (p: (f32[8])) -> (f32[8]) {
  %q.1 = (f32[8]{0}, f32[8]{0}) collective-permute-start(%p), channel_id=3, source_target_pairs={{0,1}}
  %q.2 = (f32[8]{0}, f32[8]{0}) collective-permute-start(%p), channel_id=5, source_target_pairs={{0,1}}
  %e = f32[8]{0} collective-permute-done(%q.2)
  %h = f32[8]{0} add(%p, %p)
  %f = f32[8]{0} collective-permute-done(%q.1)
}
ENTRY %main (p: f32[]) -> f32[] {
  %a = bf16[16]{0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
  %b = bf16[64]{0} fusion(%a), kind=kCustom, calls=%async_fusion
  %c = bf16[64]{0} fusion(%a), kind=kCustom, calls=%async_fusion
  %w = (f32[8]{0}) while(%t), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %s.3 = (bf16[32]{0:T(256)}, u32[], token[]) send(%a, %t.0), channel_id=6, is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="r_0",_xla_megascale_target="{1,2,3}x{0:7}",_xla_megascale_transfer_type="ALL_GATHER"}
  %y = token[] send-done(%s.3), channel_id=6, is_host_transfer=true
  %u = f32[8]{0} multiply(%p, %p)
  %r.3 = (bf16[96]{0:T(256)}, u32[], token[]) recv(%t.0), channel_id=7, is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="r_0",_xla_megascale_target="{1,2,3}x{0:7}",_xla_megascale_transfer_type="ALL_GATHER"}
  %v = (bf16[96]{0:T(256)}, token[]) recv-done(%r.3), channel_id=7, is_host_transfer=true
  ROOT %d = (f32[10]{0}, f32[10]{0}) all-reduce(%p, %p), channel_id=4, replica_groups=[4,2]<=[8], to_apply=%add
}
"""  # noqa: E501
    assert exchanges(text, 8) == [
        Exchange("reduce-scatter", 64 * 2 * 3 / 4, beside=False),
        Exchange("all-gather", 64 * 2 * 3 / 4, beside=True),
        Exchange("collective-permute", 5 * 8 * 4, beside=True),
        Exchange("collective-permute", 5 * 8 * 4, beside=False),
        Exchange("all-reduce", 2 * 20 * 4 / 2, beside=False),
        Exchange("all-gather", 2 * 32 * 2, beside=True, slices=3),
    ]
