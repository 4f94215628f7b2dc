// A person's skin and hair, painted once per clip into the map that person.frag reads: linear albedo as its square root.
// T is the place on the template head, in metres: eyes at z = 0.736, mouth 0.669, chin 0.62.
in vec3 T;
in vec4 trait;
in vec2 field;

uniform vec3 skin, lips, hair, brow;
uniform float seed, texture_strength, gloss, lip_gloss, blush, freckles, stubble, shadow_under_eyes, strands;
uniform vec4 brow_shape; // thickness, arch, height, density
uniform sampler3D noise;

layout(location = 0) out vec4 paint; // albedo, specular strength
layout(location = 1) out vec4 growth; // strand, lock, share of hair

vec3 noise_at(vec3 texels) { return texture(noise, (texels + seed * 7.3) / 32.0).rgb - 0.5; }

void main() {
    float ax = abs(T.x);
    vec3 blotch = noise_at(T * 60.0), pore = noise_at(T * 330.0), bristle = noise_at(T * vec3(1100.0, 700.0, 500.0));
    vec3 albedo = skin * (1.0 + texture_strength * (vec3(1.1, 1.0, 0.9) * blotch.r + 0.5 * pore.r));
    float flush = exp(-pow((ax - 0.045) / 0.022, 2.0) - pow((T.z - 0.692) / 0.02, 2.0))
                + 0.8 * exp(-pow(T.x / 0.016, 2.0) - pow((T.z - 0.70) / 0.016, 2.0)) * step(T.y, -0.145)
                + 0.7 * smoothstep(0.074, 0.082, ax);
    albedo *= mix(vec3(1.0), vec3(1.08, 0.76, 0.74), clamp(flush * blush * (1.0 + blotch.g), 0.0, 1.0));
    float socket = exp(-pow((ax - 0.030) / 0.022, 2.0) - pow((T.z - 0.731) / 0.013, 2.0));
    albedo *= 1.0 - vec3(0.7, 0.9, 0.8) * shadow_under_eyes * socket;
    float spots = smoothstep(0.17, 0.3, noise_at(T * 620.0).b) * smoothstep(0.075, 0.03, length(vec2(ax - 0.02, T.z - 0.715)));
    albedo *= 1.0 - vec3(0.3, 0.45, 0.55) * freckles * spots;

    float lip = smoothstep(0.30, 0.72, trait.x + 0.10 * pore.g); // fine vertical lines
    vec3 lines = noise_at(vec3(T.x * 700.0, T.y * 60.0, T.z * 60.0));
    albedo = mix(albedo, lips * (1.0 + 0.25 * lines.r + 0.2 * blotch.b), lip);
    float shine = mix(gloss * (0.8 + 0.5 * exp(-pow(ax / 0.02, 2.0)) + 0.6 * pore.b), lip_gloss, lip);

    float beard = smoothstep(-0.006, 0.010, field.y + 0.008 * blotch.r + 0.008 * bristle.g) * (1.0 - lip);
    albedo = mix(albedo, brow * (0.9 + 0.9 * bristle.r), clamp(beard * stubble * (0.95 + 0.7 * bristle.b + 0.3 * pore.b), 0.0, 0.96));
    shine *= 1.0 - 0.8 * beard * stubble;

    float along = (ax - 0.033) / 0.025;
    float middle = 0.7575 + brow_shape.z + 0.006 * brow_shape.y * (1.0 - along * along) - 0.003 * along;
    float width = brow_shape.x * 0.0058 * (1.0 - 0.45 * max(along, 0.0));
    float hairs = noise_at(vec3((ax + 1.5 * (T.z - 0.757)) * 900.0, T.z * 150.0, 0.0)).r;
    float brows = smoothstep(1.15, 0.35, abs(T.z - middle) / width + 0.5 * hairs)
                * smoothstep(1.15, 0.75, abs(along) + 0.2 * hairs) * smoothstep(-0.06, -0.08, T.y);
    albedo = mix(albedo, brow, clamp(brows * brow_shape.w * (1.0 + 0.5 * hairs), 0.0, 0.97));
    shine *= 1.0 - 0.7 * brows;
    paint = vec4(sqrt(clamp(albedo, 0.0, 1.0)), clamp(shine, 0.0, 1.0));

    vec2 around = normalize(T.xy + vec2(0.0, 0.02)); // strands fall from the crown
    float strand = noise_at(vec3(around * 26.0 * strands, T.z * 40.0)).r;
    vec3 lock = noise_at(vec3(around * 9.0, T.z * 12.0));
    float inside = field.x + 0.012 * strand + 0.007 * pore.g;
    growth = vec4(0.5 + 0.5 * (strand + 0.6 * lock.g), 0.5 + lock.b, smoothstep(-0.005, 0.007, inside), 1.0);
}
