"""`ring1 explain p2m`: the audit of a Xen PV guest's frames, and one frame of it."""

import pytest

from tests.vmm.pv.xen.calls import DATA, CallGuest
from vmm.errors import UsageError
from vmm.observe.p2m import frame_lines, p2m_story, story_lines


def test_a_sound_domain_and_one_whose_list_was_forged() -> None:
    with CallGuest(1) as guest:
        story = p2m_story(guest.vm)
        assert story.is_sound
        assert story.types["L4 table"] == story.pinned == 1
        assert sum(story.types.values()) == story.frames
        assert "every count and both lists agree" in story_lines(story)[-1]
        pfn, mfn = DATA // 4096, guest.mfn(0)
        lines = frame_lines(guest.vm, pfn)
        assert f"frame {pfn:#x} is machine frame {mfn:#x}, which leads back to {pfn:#x}" in lines[0]
        assert "writable: 1 references" in lines[1]
        guest.engine.set_pfn(mfn, 77)
        story = p2m_story(guest.vm)
        assert story.astray == ((pfn, mfn, 77),)
        assert "the lists do not agree" in story_lines(story)[-1]
        with pytest.raises(UsageError, match="give less"):
            frame_lines(guest.vm, 1 << 40)
