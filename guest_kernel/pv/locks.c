/* Test-and-set, tickets, and locks that sleep in the hypervisor. */
#include "pv/locks.h"
#include "lib/others.h"

struct native_preemption turns_page[MAX_CPUS];
bool spin_pauses = true;

static inline void relax(void)
{
    if (spin_pauses)
        asm volatile("pause" : : : "memory");
    else
        asm volatile("" : : : "memory");
}

bool tas_acquire(struct tas_lock *lock)
{
    bool waited = false;

    while (__atomic_exchange_n(&lock->taken, 1, __ATOMIC_ACQUIRE)) {
        waited = true;
        while (lock->taken)
            relax();
    }
    return waited;
}

void tas_release(struct tas_lock *lock)
{
    __atomic_store_n(&lock->taken, 0, __ATOMIC_RELEASE);
}

bool ticket_acquire(struct ticket_lock *lock)
{
    uint32_t mine = __atomic_fetch_add(&lock->next, 1, __ATOMIC_RELAXED);
    bool waited = false;

    while (__atomic_load_n(&lock->owner, __ATOMIC_ACQUIRE) != mine) {
        waited = true;
        relax();
    }
    return waited;
}

void ticket_release(struct ticket_lock *lock)
{
    __atomic_store_n(&lock->owner, lock->owner + 1, __ATOMIC_RELEASE);
}

static bool take(volatile uint32_t *state)
{
    uint32_t was = 0;

    return !*state && __atomic_compare_exchange_n(state, &was, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static bool holder_runs(const struct pv_spinlock *lock)
{
    uint32_t holder = lock->holder;

    return holder >= MAX_CPUS || !turns_page[holder].preempted;
}

static bool spin(struct pv_spinlock *lock)
{
    for (int spins = 0; spins < PV_SPINS && holder_runs(lock); spins++) {
        if (take(&lock->state))
            return true;
        relax();
    }
    return false;
}

/* Whoever sleeps leaves 2 behind, and takes the lock with 2 when it is up: it cannot know whether
 * others sleep still.  The hypervisor looks at the 2 again before it lets anybody sleep. */
bool pv_acquire(struct pv_spinlock *lock, uint32_t cpu)
{
    bool waits = !take(&lock->state);

    if (waits && !spin(lock))
        while (__atomic_exchange_n(&lock->state, 2, __ATOMIC_SEQ_CST))
            native_wait_on_value(PHYSICAL(lock->state), 2, NATIVE_FOREVER);
    lock->holder = cpu;
    turns_page[cpu].holding = turns_page[cpu].holding + 1;
    return waits;
}

void pv_release(struct pv_spinlock *lock, uint32_t cpu)
{
    lock->holder = ~0u;
    turns_page[cpu].holding = turns_page[cpu].holding - 1;
    if (__atomic_exchange_n(&lock->state, 0, __ATOMIC_SEQ_CST) == 2)
        native_wake(PHYSICAL(lock->state), 1);
    if (turns_page[cpu].yields && !turns_page[cpu].holding) {
        turns_page[cpu].yields = 0;      /* the turn was made longer for the lock: give the rest back */
        native_yield(NATIVE_FOREVER);
    }
}

bool mutex_acquire(struct pv_mutex *lock)
{
    uint32_t was = 0;

    if (__atomic_compare_exchange_n(&lock->state, &was, 1, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return false;
    while (__atomic_exchange_n(&lock->state, 2, __ATOMIC_SEQ_CST))
        native_wait_on_value(PHYSICAL(lock->state), 2, NATIVE_FOREVER);
    return true;
}

void mutex_release(struct pv_mutex *lock)
{
    if (__atomic_exchange_n(&lock->state, 0, __ATOMIC_SEQ_CST) == 2)
        native_wake(PHYSICAL(lock->state), 1);
}

void turns_share(uint32_t cpu)
{
    native_set_page(NATIVE_PAGE_PREEMPTION, PHYSICAL(turns_page[cpu]));
}
