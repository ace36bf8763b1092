/* Manual, "Checks on Guest Segment Registers" and "Checks on Guest Descriptor-Table Registers". */
#include "entry.h"

static uint64_t selector(const struct entry *n, int seg) { return n->field[VMCS_GUEST_ES_SELECTOR + seg]; }
static uint64_t base(const struct entry *n, int seg) { return n->field[VMCS_GUEST_ES_BASE + seg]; }
static uint64_t limit(const struct entry *n, int seg) { return n->field[VMCS_GUEST_ES_LIMIT + seg]; }
static uint64_t rights(const struct entry *n, int seg) { return n->field[VMCS_GUEST_ES_AR_BYTES + seg]; }
static bool usable(const struct entry *n, int seg) { return !(rights(n, seg) & AR_UNUSABLE); }
static unsigned type(const struct entry *n, int seg) { return rights(n, seg) & AR_TYPE; }
static unsigned dpl(const struct entry *n, int seg) { return rights(n, seg) >> 5 & 3; }
static unsigned rpl(const struct entry *n, int seg) { return selector(n, seg) & 3; }

typedef bool (*segment_rule)(const struct entry *n, int seg);

/* Of ES to GS. */
static bool all(const struct entry *n, segment_rule rule)
{
    for (int seg = ES; seg <= GS; seg++)
        if (!rule(n, seg))
            return false;
    return true;
}

/* Of CS, and of the others that are usable; in virtual-8086 mode the rules are others. */
static bool all_used(const struct entry *n, segment_rule rule)
{
    for (int seg = ES; seg <= GS && !is_vm86(n); seg++)
        if ((seg == CS || usable(n, seg)) && !rule(n, seg))
            return false;
    return true;
}

static bool all_data(const struct entry *n, segment_rule rule)
{
    for (int seg = ES; seg <= GS && !is_vm86(n); seg++)
        if (seg != CS && seg != SS && usable(n, seg) && !rule(n, seg))
            return false;
    return true;
}

static bool no_reserved_rights(const struct entry *n, int seg) { return !(rights(n, seg) & 0xfffe0f00); }

static bool is_granular(const struct entry *n, int seg)
{
    bool g = rights(n, seg) & AR_G;
    return !((limit(n, seg) & 0xfff) != 0xfff && g) && !(limit(n, seg) >> 20 && !g);
}

/* ---- selectors, bases, limits ---- */

static bool tr_selector(const struct entry *n) { return !(selector(n, TR) & 4); }
static bool ldtr_selector(const struct entry *n) { return !usable(n, LDTR) || !(selector(n, LDTR) & 4); }
static bool ss_selector(const struct entry *n) { return is_vm86(n) || unrestricted(n) || rpl(n, SS) == rpl(n, CS); }

static bool base_is_selector(const struct entry *n, int seg) { return base(n, seg) == selector(n, seg) << 4; }
static bool v8086_bases(const struct entry *n) { return !is_vm86(n) || all(n, base_is_selector); }

static bool tr_fs_gs_bases(const struct entry *n)
{
    return is_canonical_for(n, base(n, TR)) && is_canonical_for(n, base(n, FS)) && is_canonical_for(n, base(n, GS));
}

static bool ldtr_base(const struct entry *n) { return !usable(n, LDTR) || is_canonical_for(n, base(n, LDTR)); }
static bool cs_base(const struct entry *n) { return !(base(n, CS) >> 32); }

static bool ss_ds_es_bases(const struct entry *n)
{
    static const int segs[] = {SS, DS, ES};
    for (int k = 0; k < 3; k++)
        if (usable(n, segs[k]) && base(n, segs[k]) >> 32)
            return false;
    return true;
}

static bool is_64k(const struct entry *n, int seg) { return limit(n, seg) == 0xffff; }
static bool is_writable_data_3(const struct entry *n, int seg) { return rights(n, seg) == 0xf3; }
static bool v8086_limits(const struct entry *n) { return !is_vm86(n) || all(n, is_64k); }
static bool v8086_rights(const struct entry *n) { return !is_vm86(n) || all(n, is_writable_data_3); }

/* ---- access rights of CS to GS ---- */

static bool cs_type(const struct entry *n)
{
    uint32_t types = 1u << 9 | 1u << 11 | 1u << 13 | 1u << 15 | (unrestricted(n) ? 1u << 3 : 0);
    return is_vm86(n) || types >> type(n, CS) & 1;
}

static bool ss_type(const struct entry *n) { return is_vm86(n) || !usable(n, SS) || type(n, SS) == 3 || type(n, SS) == 7; }

static bool data_type(const struct entry *n, int seg) { return type(n, seg) & 1 && (!(type(n, seg) & 8) || type(n, seg) & 2); }
static bool data_types(const struct entry *n) { return all_data(n, data_type); }

static bool is_code_or_data(const struct entry *n, int seg) { return rights(n, seg) & AR_S; }
static bool segments_are_code_or_data(const struct entry *n) { return all_used(n, is_code_or_data); }

static bool cs_dpl(const struct entry *n)
{
    if (is_vm86(n))
        return true;
    switch (type(n, CS)) {
    case 3: return dpl(n, CS) == 0;
    case 9: case 11: return dpl(n, CS) == dpl(n, SS);
    case 13: case 15: return dpl(n, CS) <= dpl(n, SS);
    default: return true;
    }
}

static bool ss_dpl_is_rpl(const struct entry *n) { return is_vm86(n) || unrestricted(n) || dpl(n, SS) == rpl(n, SS); }

static bool ss_dpl_without_protection(const struct entry *n)
{
    bool applies = !is_vm86(n) && (type(n, CS) == 3 || !(F(GUEST_CR0) & CR0_PE));
    return !applies || dpl(n, SS) == 0;
}

static bool data_dpl(const struct entry *n, int seg) { return type(n, seg) > 11 || dpl(n, seg) >= rpl(n, seg); }
static bool data_dpls(const struct entry *n) { return unrestricted(n) || all_data(n, data_dpl); }

static bool is_present(const struct entry *n, int seg) { return rights(n, seg) & AR_P; }
static bool segments_are_present(const struct entry *n) { return all_used(n, is_present); }
static bool segments_reserved(const struct entry *n) { return all_used(n, no_reserved_rights); }

static bool cs_size(const struct entry *n) { return is_vm86(n) || !(is_ia32e(n) && rights(n, CS) & AR_L && rights(n, CS) & AR_DB); }
static bool segments_granularity(const struct entry *n) { return all_used(n, is_granular); }

/* ---- TR, LDTR, tables ---- */

static bool tr_type(const struct entry *n) { return type(n, TR) == 11 || (type(n, TR) == 3 && !is_ia32e(n)); }
static bool tr_is_system(const struct entry *n) { return !(rights(n, TR) & AR_S); }
static bool tr_is_present(const struct entry *n) { return rights(n, TR) & AR_P; }
static bool tr_reserved(const struct entry *n) { return no_reserved_rights(n, TR); }
static bool tr_granularity(const struct entry *n) { return is_granular(n, TR); }
static bool tr_is_usable(const struct entry *n) { return usable(n, TR); }
static bool ldtr_type(const struct entry *n) { return !usable(n, LDTR) || type(n, LDTR) == 2; }
static bool ldtr_is_system(const struct entry *n) { return !usable(n, LDTR) || !(rights(n, LDTR) & AR_S); }
static bool ldtr_is_present(const struct entry *n) { return !usable(n, LDTR) || rights(n, LDTR) & AR_P; }
static bool ldtr_reserved(const struct entry *n) { return !usable(n, LDTR) || no_reserved_rights(n, LDTR); }
static bool ldtr_granularity(const struct entry *n) { return !usable(n, LDTR) || is_granular(n, LDTR); }
static bool table_bases(const struct entry *n) { return is_canonical_for(n, F(GUEST_GDTR_BASE)) && is_canonical_for(n, F(GUEST_IDTR_BASE)); }
static bool table_limits(const struct entry *n) { return !((F(GUEST_GDTR_LIMIT) | F(GUEST_IDTR_LIMIT)) >> 16); }

static const struct check rows[] = {
    ROW(tr_selector), ROW(ldtr_selector), ROW(ss_selector), ROW(v8086_bases), ROW(tr_fs_gs_bases), ROW(ldtr_base), ROW(cs_base),
    ROW(ss_ds_es_bases), ROW(v8086_limits), ROW(v8086_rights), ROW(cs_type), ROW(ss_type), ROW(data_types),
    ROW(segments_are_code_or_data), ROW(cs_dpl), ROW(ss_dpl_is_rpl), ROW(ss_dpl_without_protection), ROW(data_dpls),
    ROW(segments_are_present), ROW(segments_reserved), ROW(cs_size), ROW(segments_granularity), ROW(tr_type), ROW(tr_is_system),
    ROW(tr_is_present), ROW(tr_reserved), ROW(tr_granularity), ROW(tr_is_usable), ROW(ldtr_type), ROW(ldtr_is_system),
    ROW(ldtr_is_present), ROW(ldtr_reserved), ROW(ldtr_granularity), ROW(table_bases), ROW(table_limits),
};
const struct check_list segment_checks = LIST(rows);
