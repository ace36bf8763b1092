/* What the memory-management unit of one physical CPU remembers: tags, TLB, paging-structure caches, nested TLB. */
#ifndef RING1_MMU_H
#define RING1_MMU_H

#include "engine.h"

/* What a cached translation allows, before mode bits (CR0.WP, SMEP, SMAP, keys) apply. */
enum {
    TLB_USER = 1, TLB_WRITE = 2, TLB_NX = 4, TLB_DIRTY = 8, TLB_GLOBAL = 16,
    TLB_ROM = 32,                  /* EPT forbids a store, or has to note that the page gets dirty: a store walks */
    TLB_NO_EXEC = 64, TLB_NO_READ = 128,       /* EPT's */
    TLB_KEY_SHIFT = 8,             /* protection key, 4 bits */
    TLB_SIZE_SHIFT = 12,           /* enum page_size, 2 bits: of the entry, and of the guest's page */
    TLB_GUEST_SIZE_SHIFT = 14,
};
enum page_size { PAGE_4K, PAGE_2M, PAGE_1G, PAGE_SIZES };

/* One cached thing. `page` is the key (for the TLB its top bits name the page size); tag 0 is never live. */
struct cached {
    uint64_t page, hpa;
    uint64_t more;                 /* TLB: address bits that the page leaves to the offset, without the low 12;
                                      else the guest-physical address of the table */
    uint32_t tag, rights;
};

/* Set-associative; replacement takes an invalid way first, then the ways of a set in turn (round robin). So it does not
 * depend on hits, which nobody sees: Unicorn's TLB is filled at times that host time decides. */
struct cache {
    uint32_t sets, ways;           /* sets: a power of two */
    struct cached *entries;
    uint8_t *next;                 /* by set: the way to replace */
    uint8_t *room;                 /* by set: how many ways are invalid */
};

/* A level of the modelled TLB for some page sizes. */
struct tlb_level {
    struct cache cache;
    uint8_t level, kinds, sizes;   /* 1 or 2; bits: 1 data, 2 code; bits: 1 << enum page_size */
    bool inner;                    /* Unicorn may hold only what the inner structures hold */
    uint64_t (*handed)[8];         /* by entry: which 4 KiB (of 1 GiB: 2 MiB) pieces Unicorn was given */
};

/* Everything cached is tagged by a number that stands for (VPID, PCID, EPT root). A flush of a context gives it a new
 * number: what has the old one is never found again. */
struct context {
    uint32_t vpid, pcid;
    uint64_t root;                 /* EPTP's table address; 0: no EPT */
    uint32_t tag;                  /* of its translations; 0: the context is free */
    bool is_new;                   /* nothing has been cached under that tag */
    uint32_t structure_tag;        /* of its paging-structure caches, which INVLPG empties as a whole */
};
enum { ALL_SIZES = 7 };
enum { CONTEXTS = 256, PCID_GLOBAL = 0x1000, VPID_NONE = 0x10000, PHYSICAL = 0x2000 };

enum { STRUCTURE_CACHES = 4, TLB_LEVELS = 8, REGIONS = 4096 };

struct mmu {
    /* hot */
    uint32_t tag, global_tag, structure_tag, physical_tag;
    uint64_t mix;                  /* spreads contexts over the large TLB */
    uint8_t own_sizes, global_sizes;               /* of what may be cached under tag and global_tag; 1 << enum page_size */
    uint32_t fidelity;             /* enum tlb_fidelity */
    uint32_t level_count;
    struct tlb_level levels[TLB_LEVELS];
    struct cache large;            /* TLB_LARGE: for all; TLB_SHARED: for code */
    struct cache structures[STRUCTURE_CACHES];     /* by the entry's shift: 21 or 22, 30, 39, 48 */
    struct cache nested;           /* guest-physical mappings */
    /* the EPT in force */
    uint64_t root;
    uint64_t eptp;                 /* 0: none */
    int ept_levels;
    bool ept_dirty, mode_based, logs_pages;        /* accessed and dirty flags; execute control; PML */
    uint64_t beyond;               /* address bits from MAXPHYADDR to 51 */
    bool has_1g;
    int unused_linear_bits;        /* of a register that holds an address, whatever CR4.LA57 says */
    /* tags */
    uint32_t next_tag, next_context;
    uint32_t vpid, pcid;
    unsigned roots;                /* how many roots are known: with one, a flush need not look for others */
    struct context contexts[CONTEXTS];
    uint64_t regions[2][REGIONS / 64];             /* where pieces of large pages (of 2 or 4 MiB; 1 GiB) may be cached */
    bool aside;                    /* the walk under way neither asks nor fills what walks remember: no guest access makes it */
    struct cached beside;          /* what such a walk found */
    struct walk_reference *log;    /* who explains a walk wants each reference */
    unsigned log_count, log_room;
    struct mmu_counters counters;
};

static inline struct cached *cache_set(const struct cache *c, uint64_t index)
{
    return c->entries + (index & (c->sets - 1)) * c->ways;
}

static inline struct cached *cache_find(const struct cache *c, uint64_t index, uint64_t page, uint32_t tag)
{
    struct cached *at = cache_set(c, index);
    for (uint32_t way = 0; way < c->ways; way++, at++)
        if (at->page == page && at->tag == tag)
            return at;
    return NULL;
}

/* mmucache.c */
bool mmu_create(struct engine *e);
void mmu_destroy(struct engine *e);
struct cached *cache_victim(struct cache *c, uint64_t index);  /* to be filled */
void cache_drop(struct cache *c, struct cached *entry);
/* Paging-structure caches: the table that the entry at `shift` of this linear address leads to. */
struct cached *structure_find(struct engine *e, uint64_t linear, int shift);
void structure_insert(struct engine *e, uint64_t linear, int shift, uint64_t gpa, uint64_t hpa, uint32_t rights);
void structure_drop(struct engine *e, uint64_t linear);
struct cached *nested_find(struct engine *e, uint64_t gpa);
void nested_insert(struct engine *e, uint64_t gpa, uint64_t hpa, uint32_t rights, int shift);
void nested_drop(struct engine *e, uint64_t gpa);

/* context.c */
void mmu_select(struct engine *e);                 /* after VPID, EPTP, CR3 or CR4.PCIDE may have changed */
void mmu_select_pcid(struct engine *e);            /* CR3 or CR4.PCIDE alone */
void mmu_switch_quietly(struct engine *e, uint32_t vpid);     /* to the other mode of a Xen PV vcpu */
void mmu_renew_all_structures(struct engine *e);
void mmu_flush_pcid(struct engine *e);             /* the same, and forget what the new PCID had */
void mmu_drop_in(struct engine *e, uint32_t vpid, uint32_t pcid, uint64_t linear);
void caches_clear(struct engine *e);
void mmu_wipe(struct engine *e);                   /* everything, for every context */
void mmu_renew(struct engine *e, uint32_t vpid, uint32_t pcid, uint64_t root);     /* ANY_* match all */
void mmu_renew_physical(struct engine *e, uint64_t root);
void mmu_renew_structures(struct engine *e);       /* of the current PCID */
#define ANY_VPID 0xffffffffu
#define ANY_PCID 0xffffffffu
#define NOT_GLOBAL 0xfffffffeu                     /* any PCID, but no global translation */
#define ANY_ROOT (~0ull)
#define OTHER_ROOTS (~1ull)                        /* than the current one */

/* tlb.c */
struct walk { uint64_t gpa, hpa; uint32_t rights; int shift, guest_shift; };     /* shift: log2 of the size of the mapping */
struct cached *tlb_find(struct engine *e, uint64_t linear, unsigned kind);
/* found: what tlb_find() said of the address */
struct cached *tlb_insert(struct engine *e, uint64_t linear, unsigned kind, const struct walk *w, const struct cached *found);
struct cached *tlb_peek(struct engine *e, uint64_t linear);     /* for looking: nothing moves */
void tlb_drop(struct engine *e, uint64_t linear);  /* every piece of the page that holds the address, everywhere */
struct cached *tlb_lookup(struct engine *e, uint64_t linear, enum access access, bool user);
bool tlb_allows(struct engine *e, const struct cached *t, enum access access, bool user);      /* as it stands, without a walk */
enum { KIND_DATA = 1, KIND_CODE = 2 };

static inline uint64_t cached_hpa(const struct cached *t, uint64_t linear) { return t->hpa | (linear & t->more); }

/* ept.c */
enum { EPT_READ = 1, EPT_WRITE = 2, EPT_EXECUTE = 4, EPT_EXECUTE_USER = 1 << 10, EPT_IS_DIRTY = 1 << 9 };
/* Who asks for a guest-physical address, for the exit qualification. */
struct ept_cause {
    uint64_t linear;
    bool linear_valid, is_translation;             /* of the linear address itself, not of a paging structure */
    uint32_t page_rights;          /* TLB_*, of a translation */
};
struct ept_page { uint64_t hpa; uint32_t rights; int shift; };
/* `need` of EPT_READ, WRITE, EXECUTE; false: pending is an exit. hpa: of the byte. */
bool ept_translate(struct engine *e, uint64_t gpa, uint32_t need, const struct ept_cause *cause, bool looks, struct ept_page *page);
bool serves(const struct engine *e, const struct cached *at, uint32_t need, const struct ept_cause *cause);
void note_reference(struct engine *e, uint32_t kind, int level, uint64_t gpa, uint64_t hpa, uint64_t entry);
void note_verdict(struct engine *e, uint32_t verdict);

/* pml.c */
bool pml_log(struct engine *e, uint64_t gpa);

/* invalidate.c: what each instruction and transition makes of cached translations */
void invalidate_page(struct engine *e, uint64_t linear);       /* INVLPG */
void cr3_loaded(struct engine *e, bool keeps);                 /* keeps: bit 63 of MOV CR3 */
void cr0_changed(struct engine *e, uint64_t old);
void cr4_changed(struct engine *e, uint64_t old);
void keys_changed(struct engine *e);
void paging_changed_by_entry(struct engine *e);
void vpid_off(struct engine *e);                               /* at each entry and exit without VPID */
bool op_invpcid(struct engine *e, const struct insn *i);

#endif
