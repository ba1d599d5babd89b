//! Heads with the paper's sizes, under both recipes.

use chameleon_core::FactorShape;
use chameleon_hypernet::{
    FactorInit, GeneratorConfig, GeneratorKind, HyperLoraHeadConfig, LoraConfig,
};

use crate::adapter::adaptation::HeadAdaptation;
use crate::training::method::{Head, Method};

use super::quirks::{Quirk, Quirks};
use super::settings::PaperSettings;

/// The head of a method as published; `None` for the frozen model.
pub(super) fn published(
    method: Method,
    settings: &PaperSettings,
    quirks: &Quirks,
    shape: FactorShape,
) -> Option<HeadAdaptation> {
    let init = if quirks.has(Quirk::NormalStart) {
        FactorInit::AsPublished
    } else {
        FactorInit::ZeroDelta
    };
    let scale = published_scale(settings, quirks);
    adaptation(
        method,
        GeneratorKind::DenseAsPublished,
        settings,
        scale,
        shape,
    )
    .map(|mut head| {
        match &mut head {
            HeadAdaptation::Lora { config } => config.init = init,
            HeadAdaptation::Hyper { config } => {
                if let GeneratorConfig::Dense(dense) = &mut config.generator {
                    dense.init = init;
                }
            }
            _ => {}
        }
        head
    })
}

/// The published multiplier of the factors.
pub(super) fn published_scale(settings: &PaperSettings, quirks: &Quirks) -> f64 {
    if quirks.has(Quirk::DirectAlpha) {
        settings.alpha
    } else {
        settings.alpha / settings.rank as f64
    }
}

/// The head of a method under `causal`; `None` for the frozen model.
pub(super) fn causal(
    method: Method,
    settings: &PaperSettings,
    shape: FactorShape,
) -> Option<HeadAdaptation> {
    adaptation(
        method,
        GeneratorKind::Dense,
        settings,
        settings.alpha,
        shape,
    )
}

fn adaptation(
    method: Method,
    dense: GeneratorKind,
    settings: &PaperSettings,
    scale: f64,
    shape: FactorShape,
) -> Option<HeadAdaptation> {
    let hyper = |kind| HeadAdaptation::Hyper {
        config: hyper(kind, settings, scale, shape),
    };
    match method.head {
        Head::Frozen => None,
        Head::Generated(GeneratorKind::Core) => Some(hyper(GeneratorKind::Core)),
        Head::Generated(_) => Some(hyper(dense)),
        Head::Lora
        | Head::ParameterMatchedLora(_)
        | Head::Experts
        | Head::Attention
        | Head::Steps => Some(HeadAdaptation::Lora {
            config: LoraConfig::new(shape).with_scale(scale),
        }),
    }
}

fn hyper(
    kind: GeneratorKind,
    settings: &PaperSettings,
    scale: f64,
    shape: FactorShape,
) -> HyperLoraHeadConfig {
    let mut config = HyperLoraHeadConfig::preset(kind, shape.in_size, shape);
    let (own_scale, hidden_sizes, dropout) = match &mut config.generator {
        GeneratorConfig::Core(core) => (&mut core.scale, &mut core.hidden_sizes, &mut core.dropout),
        GeneratorConfig::Dense(dense) => (
            &mut dense.scale,
            &mut dense.hidden_sizes,
            &mut dense.dropout,
        ),
    };
    *own_scale = scale;
    hidden_sizes.clone_from(&settings.hidden_sizes);
    *dropout = settings.dropout;
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPT2: FactorShape = FactorShape {
        in_size: 768,
        out_size: 50_257,
        rank: 4,
    };

    #[test]
    fn sizes_are_those_of_the_paper() {
        let settings = PaperSettings::wikitext();
        let params = |method| {
            published(method, &settings, &Quirks::published(), GPT2)
                .unwrap()
                .num_trainable_params()
        };
        assert_eq!(params(Method::LORA), 204_100);
        assert_eq!(params(Method::DENSE), 6_786_596);
    }

    #[test]
    fn alpha_is_divided_by_the_rank_without_its_quirk() {
        let settings = PaperSettings::wikitext();
        let quirks = Quirks::published();
        assert!((published_scale(&settings, &quirks) - 1.0).abs() < 1e-12);
        let quirks = quirks.without(&[Quirk::DirectAlpha]);
        assert!((published_scale(&settings, &quirks) - 0.25).abs() < 1e-12);
    }
}
