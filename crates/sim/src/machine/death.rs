//! How a node's process ends before its time, and what that leaves on its disks.

use super::Machine;
use crate::context::Context;

impl Machine {
    /// The daemon is killed; kernel and disks go on.
    pub fn kill(&mut self, ctx: &mut Context) {
        ctx.trace(self.host, || "is killed");
        let ends = self.ends();
        if let Some(mut process) = self.process.take() {
            let jobs = core::mem::take(&mut process.jobs);
            let run = process.control.incarnation;
            self.abandon_jobs(jobs.into_values(), &mut process.memory);
            self.abandon_writes(process.control);
            self.close_all(ctx, ends);
            self.note_end(run);
        }
        self.watch.started();
    }

    /// The machine loses its power: unflushed writes are lost, nobody is told.
    pub fn power_cut(&mut self, ctx: &mut Context) {
        ctx.trace(self.host, || "loses its power");
        self.end_certifying(ctx);
        if let Some(mut process) = self.process.take() {
            let jobs = core::mem::take(&mut process.jobs);
            self.abandon_jobs(jobs.into_values(), &mut process.memory);
            self.abandon_writes(process.control);
        }
        self.watch.started();
        ctx.network.switch_off(self.host);
        for files in self.volumes.values_mut() {
            files.image.power_cut(&mut self.prng);
            files.meta.power_cut(&mut self.prng);
        }
    }
}
