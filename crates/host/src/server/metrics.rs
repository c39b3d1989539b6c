//! The host's figures for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use napa_api::host::{Direction, HostReport, Level, VmMemoryRow};
use napa_units::Bytes;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Sources;

type Labels = Vec<(&'static str, String)>;

/// What was decided since the daemon started, by mechanism and direction.
#[derive(Debug, Default)]
pub struct Counters {
    decided: Mutex<BTreeMap<(String, &'static str), Sum>>,
}

/// Orders of a kind.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    times: u64,
    bytes: u64,
}

impl Counters {
    /// Adds the decisions of a report.
    pub fn count(&self, report: &HostReport) {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        for decision in &report.decisions {
            let direction = match decision.direction {
                Direction::Take => "take",
                Direction::Return => "return",
                Direction::Cancel => "cancel",
            };
            let sum = decided.entry((decision.what.clone(), direction)).or_default();
            sum.times += 1;
            sum.bytes = sum.bytes.saturating_add(decision.bytes.0);
        }
    }
}

/// The host's figures in the text format of Prometheus (OpenMetrics 1.0).
#[utoipa::path(get, path = "/metrics", tag = "host", responses(
    (status = 200, description = "The figures", body = String, content_type = "application/openmetrics-text")))]
pub async fn metrics(State(sources): State<Arc<Sources>>) -> Response {
    let mut registry = Registry::with_prefix("napa");
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    registry.register("build", "The program that answers", Info::new(version));
    vms(&mut registry, &sources);
    if let Some(report) = sources.latest.report() {
        host(&mut registry, &report);
        rows(&mut registry, &report.vms);
    }
    decided(&mut registry, &sources.latest.counters);
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = encode(&mut text, &registry);
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
        .into_response()
}

fn vms(registry: &mut Registry, sources: &Sources) {
    let states = Family::<Labels, Gauge>::default();
    for vm in sources.list() {
        states.get_or_create(&vec![("state", vm.state.to_string())]).inc();
    }
    registry.register("vms", "VMs by what they do", states);
}

fn host(registry: &mut Registry, report: &HostReport) {
    let figures = &report.host;
    let mut bytes = |name: &str, help: &str, value: Bytes| {
        registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::new(value.0 as f64));
    };
    bytes("host_ram", "RAM of the host", figures.ram);
    bytes("host_capacity", "RAM that VMs may hold", figures.capacity);
    bytes("host_held", "RAM that VMs hold", figures.held);
    bytes("host_available", "RAM that can be had without swapping", figures.available);
    bytes("host_swap", "Swap of the host", figures.swap.total);
    bytes("host_swap_used", "What is in swap", figures.swap.used);
    bytes("host_swap_compressed", "RAM that holds compressed pages", figures.swap.compressed);
    bytes("host_promised_limits", "The sum of the limits of VMs that run", report.guarantees.limits);
    bytes("host_promised_reservations", "The sum of their reservations", report.guarantees.reservations);
    bytes("host_promised_swap", "Swap that was promised to them", report.guarantees.swap_promised);
    if let Some(profit) = figures.sharing_profit {
        registry.register_with_unit(
            "host_sharing_profit",
            "What merging equal pages saves",
            Unit::Bytes,
            ConstGauge::new(profit as f64),
        );
    }
    let pressure = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    for (kind, share) in [("some", figures.pressure_some), ("full", figures.pressure_full)] {
        pressure.get_or_create(&vec![("kind", kind.to_owned())]).set(share);
    }
    registry.register_with_unit("host_pressure", "Time lost for want of memory", Unit::Ratios, pressure);
    let level = Level::ALL.iter().position(|level| *level == report.level).unwrap_or_default();
    registry.register(
        "host_level",
        "How scarce memory is: 0 (plenty) to 4 (none)",
        ConstGauge::new(level as f64),
    );
}

fn rows(registry: &mut Registry, rows: &[VmMemoryRow]) {
    let parts = Family::<Labels, Gauge>::default();
    let mut single: BTreeMap<&str, Family<Labels, Gauge>> = BTreeMap::new();
    for row in rows {
        for (part, size) in [
            ("resident", row.resident),
            ("shared", row.shared),
            ("zero", row.zero),
            ("discarded", row.discarded),
            ("swapped", row.swapped),
        ] {
            let labels = vec![("vm", row.name.clone()), ("part", part.to_owned())];
            parts.get_or_create(&labels).set(size.0 as i64);
        }
        for (name, size) in [
            ("vm_limit", Some(row.limit)),
            ("vm_reservation", Some(row.reservation)),
            ("vm_entitlement", Some(row.entitlement)),
            ("vm_pss", Some(row.pss)),
            ("vm_balloon", Some(row.ballooned)),
            ("vm_balloon_target", Some(row.balloon_target)),
            ("vm_working_set", row.working_set),
            ("vm_guest_available", row.guest_available),
        ] {
            if let Some(size) = size {
                let family = single.entry(name).or_default();
                family.get_or_create(&vec![("vm", row.name.clone())]).set(size.0 as i64);
            }
        }
    }
    registry.register_with_unit("vm_memory", "Where the memory of a guest is", Unit::Bytes, parts);
    for (name, family) in single {
        let mut help = String::new();
        let _ = write!(help, "A VM's {}", name.trim_start_matches("vm_").replace('_', " "));
        registry.register_with_unit(name, help, Unit::Bytes, family);
    }
    let pressure = Family::<Labels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    for row in rows {
        if let Some(share) = row.pressure {
            pressure.get_or_create(&vec![("vm", row.name.clone())]).set(share);
        }
    }
    registry.register_with_unit(
        "vm_pressure",
        "Time that a VM lost for want of memory",
        Unit::Ratios,
        pressure,
    );
}

fn decided(registry: &mut Registry, counters: &Counters) {
    let (times, sizes) = (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
    let decided = counters.decided.lock().unwrap_or_else(PoisonError::into_inner);
    for ((mechanism, direction), sum) in decided.iter() {
        let labels = vec![("mechanism", mechanism.clone()), ("direction", (*direction).to_owned())];
        times.get_or_create(&labels).inc_by(sum.times);
        sizes.get_or_create(&labels).inc_by(sum.bytes);
    }
    drop(decided);
    registry.register("decisions", "Orders that were given", times);
    registry.register_with_unit("decided", "Memory that orders were about", Unit::Bytes, sizes);
}
