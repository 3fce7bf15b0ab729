//! What is flushed survives a power cut, and only that is sure to.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A store with one file whose name is durable.
fn store(seed: u64) -> (Store, u64, PathBuf) {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let backing =
        std::env::temp_dir().join(format!("lockstep-store-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&backing).unwrap();
    let mut store = Store::new(backing.clone(), Random::new(seed, 1));
    let file = store.make(ROOT, "f".as_ref(), 0o600, false).unwrap();
    store.flush(ROOT).unwrap();
    (store, file, backing)
}

#[test]
fn what_is_written_is_read_and_what_is_flushed_survives() {
    for seed in 0..50 {
        let (mut store, file, backing) = store(seed);
        store.write(file, 100, &[7; 2000], false).unwrap();
        assert_eq!(store.read(file, 0, 10_000).unwrap()[100..], [7; 2000]);
        store.flush(file).unwrap();
        store.cut_power().unwrap();
        assert_eq!(store.read(file, 0, 10_000).unwrap()[100..], [7; 2000]);
        std::fs::remove_dir_all(backing).unwrap();
    }
}

#[test]
fn what_is_not_flushed_is_lost_torn_or_kept_by_sector() {
    let mut outcomes = [0; 3];
    for seed in 0..100 {
        let (mut store, file, backing) = store(seed);
        store.write(file, 0, &[1; 8 * SECTOR], true).unwrap();
        store.write(file, 0, &[2; 8 * SECTOR], false).unwrap();
        store.write(file, 0, &[3; 8 * SECTOR], false).unwrap();
        store.cut_power().unwrap();
        let left = store.read(file, 0, 8 * SECTOR as u64).unwrap();
        for sector in left.chunks(SECTOR) {
            assert!((1..=3).contains(&sector[0]) && sector.iter().all(|byte| *byte == sector[0]));
            outcomes[usize::from(sector[0]) - 1] += 1;
        }
        // What the cut left is durable.
        store.cut_power().unwrap();
        assert_eq!(store.read(file, 0, 8 * SECTOR as u64).unwrap(), left);
        std::fs::remove_dir_all(backing).unwrap();
    }
    assert!(outcomes.iter().all(|count| *count > 50), "{outcomes:?}");
}

#[test]
fn a_flush_covers_what_came_before_it_and_a_durable_write_only_itself() {
    for seed in 0..50 {
        let (mut store, file, backing) = store(seed);
        store.write(file, 0, &[1; 2 * SECTOR], false).unwrap();
        store.flush(file).unwrap();
        store.write(file, 0, &[2; SECTOR], false).unwrap();
        store
            .write(file, SECTOR as u64, &[3; SECTOR], true)
            .unwrap();
        store.cut_power().unwrap();
        let left = store.read(file, 0, 2 * SECTOR as u64).unwrap();
        assert!(left[0] == 1 || left[0] == 2);
        assert_eq!(left[SECTOR], 3);
        std::fs::remove_dir_all(backing).unwrap();
    }
}

#[test]
fn names_are_lost_from_the_newest_on_unless_the_directory_was_flushed() {
    let mut seen = BTreeMap::<bool, u32>::new();
    for seed in 0..50 {
        let (mut store, _, backing) = store(seed);
        let new = store.make(ROOT, "new".as_ref(), 0o600, false).unwrap();
        store.write(new, 0, b"new", false).unwrap();
        store.flush(new).unwrap();
        store
            .rename((ROOT, "new".as_ref()), (ROOT, "f".as_ref()))
            .unwrap();
        if seed % 2 == 0 {
            store.flush(ROOT).unwrap();
        }
        store.cut_power().unwrap();
        let replaced = store.contents("f").unwrap() == b"new";
        assert!(replaced || seed % 2 == 1, "a flushed rename stays");
        assert!(
            !(replaced && store.find("new").is_ok()),
            "a rename is whole"
        );
        if seed % 2 == 1 {
            *seen.entry(replaced).or_default() += 1;
        }
        std::fs::remove_dir_all(backing).unwrap();
    }
    assert_eq!(seen.len(), 2, "both ends of an unflushed rename: {seen:?}");
}

#[test]
fn zeroed_and_reserved_ranges_are_what_they_should_be() {
    let (mut store, file, backing) = store(3);
    store.allocate(file, 0, 4096, false, false).unwrap();
    assert_eq!(store.facts(file).unwrap().len, 4096);
    store.write(file, 0, &[9; 4096], true).unwrap();
    store.allocate(file, 512, 1024, true, true).unwrap();
    let bytes = store.read(file, 0, 4096).unwrap();
    assert_eq!(
        (bytes[511], bytes[512], bytes[1535], bytes[1536]),
        (9, 0, 0, 9)
    );
    store.allocate(file, 4000, 1000, true, true).unwrap();
    assert_eq!(store.facts(file).unwrap().len, 4096, "the size is kept");
    store.set_len(file, 100).unwrap();
    store.set_len(file, 200).unwrap();
    assert_eq!(store.read(file, 0, 4096).unwrap()[99..102], [9, 0, 0]);
    std::fs::remove_dir_all(backing).unwrap();
}
