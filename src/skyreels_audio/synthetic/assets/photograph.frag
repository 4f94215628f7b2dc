// Skin that carries the photograph's own pixels; behind the lips it is the mouth's own, under the light of light.glsl.
in vec3 T;
in vec4 trait;
in vec2 field, map_place; // in the photograph, with eyes as they are and shut

uniform sampler2D picture;
uniform vec2 blink; // left eye, right eye

out vec4 colour;

void main() {
    float shut = T.x > 0.0 ? blink.x : blink.y;
    float blur = 3.0 * shut * smoothstep(0.004, 0.02, distance(field, map_place)); // lids are plain skin
    vec3 skin = textureLod(picture, mix(field, map_place, shut), blur).rgb;
    vec3 inside = vec3(0.62, 0.25, 0.23) * sqrt(sky) * mix(0.3, 1.1, trait.w);
    colour = vec4(mix(skin, inside, smoothstep(0.3, 0.7, trait.z)), 1.0);
}
