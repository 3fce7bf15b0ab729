//! What every command pays: digests of its blocks, a slot of the pool, a sealed frame.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lockstep_engine::pool::{Pool, PoolClass, Purpose};
use lockstep_iscsi::digest::crc32c;
use std::hint::black_box;

fn digests(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for len in [48, 4096, 65_536] {
        let bytes = vec![0x5a; len];
        group.throughput(Throughput::Bytes(
            u64::try_from(len).expect("a length fits 64 bits"),
        ));
        group.bench_function(format!("{len} bytes"), |b| {
            b.iter(|| crc32c(black_box(&bytes)))
        });
    }
    group.finish();
}

fn slots(c: &mut Criterion) {
    let classes = [
        PoolClass {
            slots: 1024,
            slot_bytes: 16 << 10,
        },
        PoolClass {
            slots: 64,
            slot_bytes: 1 << 20,
        },
    ];
    c.bench_function("take and release 32 slots", |b| {
        b.iter_batched_ref(
            || Pool::new(&classes),
            |pool| {
                let taken: Vec<_> = (0..32)
                    .filter_map(|_| pool.take(4096, Purpose::Initiator))
                    .collect();
                for buffer in taken {
                    pool.release(buffer);
                }
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, digests, slots);
criterion_main!(benches);
