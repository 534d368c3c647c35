"""The policies that are shipped: ballooning under memory pressure, and KSM on demand.

Nothing is done until parameters ask for it.
"""

from __future__ import annotations

DEFINITIONS = "00-defines"

POLICIES = {
    DEFINITIONS: """
# What setMOMPolicyParameters may set. Nothing happens to what is null.
(defvar balloonEnabled null)
(defvar ksmEnabled null)
(defvar ksmMergeAcrossNodes null)

# The share of the host's memory that should be free: below it, there is pressure; below the second, much of it.
(defvar pressure_threshold 0.20)
(defvar pressure_critical 0.05)
""",
    "02-balloon": """
# Under pressure, take from every guest what it does not use; without, give it back bit by bit.

# The share of its memory that a guest may keep free when there is little pressure, and how far its memory may move in a round.
(defvar guest_free_share 0.20)
(defvar most_change 0.05)
# Less than this share is not worth asking a guest for.
(defvar least_change 0.0025)

(defvar host_free (/ (Host.StatAvg "mem_free") Host.mem_available))

(def move (guest target) {
    (defvar wanted (min guest.balloon_max (max guest.balloon_min target)))
    (if (>= (abs (- wanted guest.balloon_cur)) (* least_change guest.balloon_cur))
        (guest.Control "balloon_target" wanted))
})

(def shrink (guest) {
    # With much pressure nothing is left free, and the guest swaps a little.
    (defvar share (if (<= host_free pressure_critical)
        -0.05
        (* guest_free_share (/ host_free pressure_threshold))))
    (defvar used (- (guest.StatAvg "balloon_cur") (guest.StatAvg "mem_unused")))
    (defvar needed (+ used (* share guest.balloon_cur)))
    (defvar reached (max needed (* guest.balloon_cur (- 1 most_change))))
    (if (< reached guest.balloon_cur) (move guest reached))
})

(def grow (guest)
    (if (< guest.balloon_cur guest.balloon_max)
        (move guest (+ guest.balloon_cur (* most_change guest.balloon_max)))))

(if (or (null? balloonEnabled) (not balloonEnabled))
    0
    (if (< host_free pressure_threshold)
        (with Guests guest (shrink guest))
        (with Guests guest (grow guest))))
""",
    "03-ksm": """
# Under pressure, look for equal pages, faster with every round; without, slower, and at last not at all.
(defvar ksm_pages_boost 300)
(defvar ksm_pages_decay 50)
(defvar ksm_pages_least 64)
(defvar ksm_pages_most 1250)
# Milliseconds between two looks, on a host with 16 GiB; larger hosts look more often, and none more often than the second.
(defvar ksm_sleep 100)
(defvar ksm_sleep_least 10)

(def set_pages (pages)
    (Host.Control "ksm_pages_to_scan" (min ksm_pages_most (max ksm_pages_least pages))))

(def tune_ksm () {
    (if (< (/ (Host.StatAvg "mem_free") Host.mem_available) pressure_threshold) {
        (Host.Control "ksm_run" 1)
        (set_pages (+ Host.ksm_pages_to_scan ksm_pages_boost))
        (Host.Control "ksm_sleep_millisecs"
            (max ksm_sleep_least (/ (* ksm_sleep 16777216) Host.mem_available)))
    } (if Host.ksm_run {
        (set_pages (- Host.ksm_pages_to_scan ksm_pages_decay))
        (if (<= Host.ksm_pages_to_scan ksm_pages_least) (Host.Control "ksm_run" 0))
    }))
})

(if (null? ksmMergeAcrossNodes) 0 (Host.Control "ksm_merge_across_nodes" ksmMergeAcrossNodes))
(if (null? ksmEnabled) 0 (if ksmEnabled (tune_ksm) (Host.Control "ksm_run" 0)))
""",
}
