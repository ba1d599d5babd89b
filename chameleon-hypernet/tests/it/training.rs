//! Both generators learn from their zero start; a static head cannot learn what they learn.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use chameleon_core::{FactorShape, LoraFactors, RunSeed};
use chameleon_hypernet::{
    CoreConfig, Generator, GeneratorKind, HyperLoraHeadConfig, LoraConfig, OutputInit,
};

const SHAPE: FactorShape = FactorShape {
    in_size: 8,
    out_size: 8,
    rank: 2,
};

/// Two groups that want opposite changes of the same layer.
struct Opposites {
    hidden: Tensor<2>,
    conditions: Tensor<2>,
}

impl Opposites {
    fn new(device: &Device) -> Self {
        Self {
            hidden: Tensor::eye(8, device),
            conditions: Tensor::from_data([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]], device),
        }
    }

    fn loss(&self, factors: &[LoraFactors]) -> Tensor<1> {
        let device = self.hidden.device();
        let ones = Tensor::<2>::ones([8, 8], &device);
        let losses = factors.iter().zip([1.0, -1.0]).map(|(factors, sign)| {
            let miss = factors.apply(self.hidden.clone()) - ones.clone() * sign;
            miss.square().mean()
        });
        Tensor::cat(losses.collect(), 0).mean()
    }
}

/// Losses before and after training.
fn train<M: Module>(
    mut module: M,
    task: &Opposites,
    factors: impl Fn(&M) -> Vec<LoraFactors>,
) -> (f32, f32) {
    let mut optimizer = AdamWConfig::new().with_weight_decay(0.0).init();
    let first = task.loss(&factors(&module)).into_scalar::<f32>();
    for _ in 0..150 {
        let gradients = task.loss(&factors(&module)).backward();
        let gradients = GradientsParams::from_grads(gradients, &module);
        module = optimizer.step(0.02, module, gradients);
    }
    (first, task.loss(&factors(&module)).into_scalar::<f32>())
}

#[test]
fn generators_learn_opposite_changes_from_a_zero_delta() {
    let device = Device::flex().autodiff();
    let task = Opposites::new(&device);
    for kind in [GeneratorKind::Core, GeneratorKind::Dense] {
        device.seed(1);
        let head = HyperLoraHeadConfig::preset(kind, 3, SHAPE).init(RunSeed(1), &device);
        let (first, last) = train(head, &task, |head| head.factors(task.conditions.clone()));
        assert!(
            (first - 1.0).abs() < 1e-6,
            "{kind} starts at {first}, the base is at 1"
        );
        assert!(last < 0.2, "{kind} ends at {last}");
    }
}

/// Why [`CoreConfig::output_init`] is not zero.
#[test]
fn zero_cores_never_leave_a_start_where_groups_cancel() {
    let device = Device::flex().autodiff();
    let task = Opposites::new(&device);
    let core = CoreConfig::new(3, SHAPE)
        .with_dropout(0.0)
        .with_output_init(OutputInit::Zeros)
        .init(RunSeed(1), &device);
    let generate = |generator: &Generator| generator.generate(task.conditions.clone());
    let (_, last) = train(Generator::Core(core), &task, generate);
    assert!((last - 1.0).abs() < 1e-6, "ends at {last}");
}

#[test]
fn a_static_head_cannot_learn_opposite_changes() {
    let device = Device::flex().autodiff();
    let task = Opposites::new(&device);
    let head = LoraConfig::new(SHAPE).init(RunSeed(1), &device);
    let (_, last) = train(head, &task, |head| vec![head.factors(), head.factors()]);
    assert!(last > 0.9, "ends at {last}");
}
